"""Which file of a folder of annotations belongs to which image."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from code_common.annotations.choice import Choice
from code_common.annotations.formats import (
    ARRAYS,
    CELLPOSE_OUTLINES,
    READERS,
    TABLES,
    Annotations,
    read_images,
)
from code_common.annotations.text import first_names, some_names
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles, Names, plain_name

# What tools add to the name of the image, longest first.
ENDINGS = (
    CELLPOSE_OUTLINES,
    "_cp_masks",
    "_label_point",
    "_annotations",
    "_instances",
    "-labelled",
    "_outlines",
    "_roiset",
    "_points",
    "_nuclei",
    "_labels",
    "-labels",
    "_label",
    "_masks",
    "_mask",
    "-mask",
    "_rois",
    "_seg",
)
BEGINNING = "cellcounter_"  # of ImageJ's Cell Counter
MASKS = "masks"  # TILE/masks/*.png, one for each nucleus


class Sources:
    """The files of a folder of annotations, by the image they belong to."""

    def __init__(self, folder: Path, images: Sequence[str], kind: str, image_files: Sequence[str]):
        """images: the names of the images without suffixes; image_files: with them.

        kind: points or masks, as wanted.
        """
        self.folder, self.kind, self.image_files = folder, kind, set(map(same_letters, image_files))
        self.images = list(images)
        called = Names(images)
        self.files: dict[str, list[Path]] = {image: [] for image in images}
        self.others: list[Path] = []  # annotations of no image
        self.passed_over: list[Path] = []  # less likely files of images that have another one
        for path in sorted(folder.iterdir()):
            keys = keys_of(path)
            owner = next(filter(None, map(called.find, keys)), None)
            if owner is not None:
                self.files[owner].append(path)
            elif keys:
                self.others.append(path)

    def find(self, image: str) -> Path | None:
        """The file of an image. Raises InputError where there are several.

        Outlines and points come first, then maps that are named as such, then a plain image, since
        the image itself may lie in the folder.
        """
        files = self.files[image]
        if not files:
            return None
        ranks = {path: _rank(path, self.kind) for path in files}
        first = min(ranks.values())
        self.passed_over += [
            path
            for path in files
            if first < ranks[path] <= 3 and same_letters(path.name) not in self.image_files
        ]
        files = [path for path in files if ranks[path] == first]
        own = [path for path in files if path.name == f"{image}_points.csv"]
        if own and {path.name for path in files} == {own[0].name, f"{image}_points.geojson"}:
            self.passed_over += [path for path in files if path not in own]  # the same detections
            files = own
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise InputError(f"{self.folder}: {names} are for one image; keep one of them")
        return files[0] / MASKS if files[0].is_dir() else files[0]

    def nothing(self) -> str:
        """What was looked for and what is there, where no file belongs to an image."""
        image = self.images[0]
        looked = f"{image}.geojson, .xml, .csv, ..., {image}_cp_masks.png, {image}_mask.tif, ..."
        there = first_names(sorted(self.folder.iterdir()))
        hint = ""
        if any(path.suffix.lower() in (".json", ".xml") for path in self.others):
            hint = " (a file of all images is itself the --source)"
        return (
            f"{self.folder}: nothing in it has the name of an image; looked for {looked}; "
            f"there are: {there or 'no files'}{hint}"
        )


def same_letters(name: str) -> str:
    """A name in composed letters: macOS writes an umlaut as two characters, others as one."""
    return normalize("NFC", name)


def keys_of(path: Path) -> list[str]:
    """The names of images that a file of annotations may belong to, the likeliest first."""
    name = same_letters(path.name)
    if name.startswith("."):
        return []
    if path.is_dir():
        return [name] if (path / MASKS).is_dir() else []
    if name.lower().endswith(".gz"):
        name = name[: -len(".gz")]
    suffix = Path(name).suffix
    if suffix.lower() not in (*READERS, *ARRAYS):
        return []
    stem = name[: -len(suffix)]
    keys = [stem, plain_name(stem)]
    keys += [_without(key, ENDINGS) for key in keys]
    if name.lower().startswith(BEGINNING):
        keys += [key[len(BEGINNING) :] for key in keys]
    return list(dict.fromkeys(keys))


def _without(name: str, endings: Sequence[str]) -> str:
    """A name without the first of the endings that it has, in capitals or not."""
    for ending in endings:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def _rank(path: Path, kind: str) -> int:
    """Which of the files of an image are taken: those of the lowest rank."""
    stem, suffix = path.stem.lower(), path.suffix.lower()
    of_points = suffix in TABLES or stem.endswith(("_points", "_label_point"))
    if kind == "masks" and of_points and not stem.endswith(CELLPOSE_OUTLINES):
        return 2  # points, beside a map
    if stem.endswith((CELLPOSE_OUTLINES, "_nuclei")):  # beside the map that they are made of
        return 2
    if path.is_dir() or suffix in READERS:
        return 0
    if stem.endswith("_seg") and suffix == ".npy":  # Cellpose's pickle, often beside a map
        return 4
    return 1 if stem.endswith(ENDINGS) or suffix in (".npy", ".mat") else 3


def match_names(
    path: Path, by_name: dict[str, Annotations], image_files: Sequence[ImageFiles]
) -> tuple[dict[str, Annotations | None], list[str]]:
    """The annotations of each image in a file for all, and the names that no image has.

    by_name: what the file at `path` holds, by the file name of the image. A name with another
    suffix is taken where it is the only one: tools convert images. Raises InputError where there
    is nothing for any image.
    """
    by_name = {same_letters(name): annotations for name, annotations in by_name.items()}
    called = Names([files.name for files in image_files])
    names_of: dict[str | None, list[str]] = {}
    for name in by_name:
        names_of.setdefault(called.find(name), []).append(name)
    sources, used = {}, set()
    for files in image_files:
        name = same_letters(files.image.name)
        if name not in by_name:
            others = names_of.get(files.name, [])
            name = others[0] if len(others) == 1 else name
        sources[files.name] = by_name.get(name)
        used.add(name)
    others = [name for name in by_name if name not in used]
    if not any(source is not None for source in sources.values()):
        shown = first_names(others) or "no images"
        raise InputError(
            f"{path}: nothing in it has the name of an image; looked for "
            f"{image_files[0].image.name}, ...; there are: {shown}"
        )
    return sources, others


def find_sources(
    image_files: Sequence[ImageFiles], source: Path, kind: str, choice: Choice
) -> tuple[dict[str, Path | Annotations | None], list[str], list[str]]:
    """The annotations of each image by its name, notes, and an error for each with several files.

    source: a folder, or a file; kind: masks or points, as wanted; choice: which objects are.
    Notes say which files are not read. Raises InputError where there is no source, and where
    nothing belongs to any image.
    """
    notes, errors = [], []
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    names = [files.name for files in image_files]
    owner = next(filter(None, map(Names(names).find, keys_of(source))), None)
    if source.is_dir():
        images = [files.image.name for files in image_files]
        sources, folder = {}, Sources(source, names, kind, images)
        for name in names:
            try:
                sources[name] = folder.find(name)
            except InputError as error:
                errors.append(str(error))
        if not errors and not any(sources.values()):
            raise InputError(folder.nothing())
        others = folder.others
        if folder.passed_over:
            notes = [
                f"not read, beside other files of their image: {some_names(folder.passed_over)}"
            ]
    elif owner is not None:
        sources, others = {owner: source}, []
    else:
        by_name = read_images(source, choice)
        sources, others = match_names(source, by_name, image_files)
    if others:
        notes.insert(0, f"of no image: {some_names(others)}")
    return sources, notes, errors
