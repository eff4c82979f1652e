"""Which file of a folder of annotations belongs to which image."""

import filecmp
from collections.abc import Collection, Sequence
from pathlib import Path
from unicodedata import normalize

from code_common.annotations.choice import Choice
from code_common.annotations.formats import (
    ARRAYS,
    READERS,
    TABLES,
    TEXTS,
    Annotations,
    read_images,
)
from code_common.annotations.text import first_names, short, some_names
from code_common.annotations.twins import refuse_different
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.names import (
    CELLPOSE_OUTLINES,
    ENDINGS,
    Names,
    names_meant,
    without_copy,
)

BEGINNING = "cellcounter_"  # of ImageJ's Cell Counter
MASKS = "masks"  # TILE/masks/*.png, one for each nucleus
# How the names of two files of one prediction end: of that which is taken, and of the other.
SAME = ("_points.csv", "_points.geojson"), ("_nuclei.geojson", "_nuclei.csv")
PLAIN = 3  # rank of an array whose name says nothing: a map, or a picture


class Sources:
    """The files of a folder of annotations, by the image they belong to."""

    def __init__(self, folder: Path, image_files: Sequence[ImageFiles], kind: str):
        """kind: points or masks, as wanted."""
        self.folder, self.kind = folder, kind
        self.image_names = {same_letters(files.image.name) for files in image_files}
        self.images = [files.name for files in image_files]
        called = Names(self.images)
        self.files: dict[str, list[Path]] = {image: [] for image in self.images}
        self.others: list[Path] = []  # annotations of no image
        for path in sorted(folder.iterdir()):
            keys = keys_of(path)
            owner = next(filter(None, map(called.find, keys)), None)
            if owner is not None:
                self.files[owner].append(path)
            elif keys:
                self.others.append(path)

    def find(self, image: ImageFiles) -> tuple[Path | None, list[Path]]:
        """The file of an image, and those that are passed over for it.

        Outlines and points come first, then maps that are named as such, then a plain image. The
        image itself may lie in the folder, and is none of them. Raises InputError where there are
        several of the first kind.
        """
        ranks = {path: _rank(path, self.kind) for path in self.files[image.name]}
        ranks = {path: r for path, r in ranks.items() if r != PLAIN or not is_copy(path, image)}
        if not ranks:
            return None, []
        first = min(ranks.values())
        files = [path for path, rank in ranks.items() if rank == first]
        others = [
            path
            for path, rank in ranks.items()
            if first < rank <= PLAIN and same_letters(path.name) not in self.image_names
        ]
        by_name = {path.name: path for path in files}
        for taken, beside in SAME:
            names = [f"{image.name}{ending}" for ending in (taken, beside)]
            if by_name.keys() == set(names):
                files, others = [by_name[names[0]]], [*others, by_name[names[1]]]
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise InputError(f"{self.folder}: {names} are for one image; keep one of them")
        return files[0] / MASKS if files[0].is_dir() else files[0], others

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


def is_copy(path: Path, image: ImageFiles) -> bool:
    """Whether a file is an image itself, or holds the same bytes."""
    if not (path.is_file() and image.image.is_file()):
        return False
    return path.samefile(image.image) or filecmp.cmp(path, image.image, shallow=False)


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
    path = Path(unpacked(name))
    if path.suffix.lower() not in (*READERS, *ARRAYS):
        return []
    keys = names_meant(path.stem)
    if name.lower().startswith(BEGINNING):
        keys += [key[len(BEGINNING) :] for key in keys]
    return keys


def unpacked(name: str) -> str:
    """The name of a file without the suffix of what packed it: 'T.csv.gz', 'T.csv.zip' -> 'T.csv'.

    'T.zip' stays, since its text may have any name.
    """
    inner, _, packed = name.rpartition(".")
    is_text = Path(inner).suffix.lower() in TEXTS
    return inner if packed.lower() == "gz" or (packed.lower() == "zip" and is_text) else name


def _rank(path: Path, kind: str) -> int:
    """Which of the files of an image are taken: those of the lowest rank."""
    inner = Path(unpacked(path.name))
    stem, suffix = without_copy(inner.stem).lower(), inner.suffix.lower()
    a_map, of_a_map = (1, 2) if kind == "masks" else (2, 1)  # points are read of no map
    of_points = suffix in TABLES or stem.endswith(("_points", "_label_point"))
    if kind == "masks" and of_points and not stem.endswith(CELLPOSE_OUTLINES):
        return of_a_map  # points, beside it
    if stem.endswith((CELLPOSE_OUTLINES, "_nuclei")):  # beside the map that they are made of
        return of_a_map
    if path.is_dir() or suffix in READERS:
        return 0
    if stem.endswith("_seg") and suffix == ".npy":  # Cellpose's pickle, often beside a map
        return PLAIN + 1
    return a_map if stem.endswith(ENDINGS) or suffix in (".npy", ".mat") else PLAIN


def match_names(
    path: Path, by_name: dict[str, Annotations], image_files: Sequence[ImageFiles]
) -> tuple[dict[str, Annotations | None], list[str]]:
    """The annotations of each image in a file for all, and the names that no image has.

    by_name: what the file at `path` holds, by the file name of the image. A name with another
    suffix, or none, is taken where it is the only one with objects: tools convert images. Several
    with objects are an error of that image. Raises InputError where there is nothing for any image.
    """
    by_name = {same_letters(name): annotations for name, annotations in by_name.items()}
    called = Names([files.name for files in image_files])
    names_of: dict[str | None, list[str]] = {}
    for name in by_name:
        names_of.setdefault(called.find(name), []).append(name)
    sources, used = {}, set()
    for files in image_files:
        name = same_letters(files.image.name)
        names = names_of.get(files.name, [])
        held = [n for n in names if by_name[n].count() or by_name[n].error]
        if len(held) > 1:
            message = f"{', '.join(map(short, held))} are names of one image, {files.image.name}"
            sources[files.name] = Annotations(error=InputError(f"{path}: {message}; keep one"))
            used |= {*held}
            continue
        if name not in by_name or held:
            name = (held or names or [name])[0]
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
    image_files: Sequence[ImageFiles],
    source: Path,
    kind: str,
    choice: Choice,
    kept: Collection[str] = (),
) -> tuple[dict[str, Path | Annotations | None], list[str], dict[str, str]]:
    """The annotations of each image by its name, notes, and the error of each with several files.

    source: a folder, or a file; kind: masks or points, as wanted; choice: which objects are; kept:
    names of images of which nothing is read. Notes say which files are not read. Raises InputError
    where there is no source, and where nothing belongs to any image.
    """
    notes, errors = [], {}
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    names = [files.name for files in image_files]
    owner = next(filter(None, map(Names(names).find, keys_of(source))), None)
    if source.is_dir():
        sources, folder, passed_over = {}, Sources(source, image_files, kind), []
        for files in image_files:
            try:
                found, others = folder.find(files)
                if found and files.name not in kept:
                    refuse_different(files, found, others, kind, choice)
                sources[files.name] = found
                passed_over += others
            except InputError as error:
                errors[files.name] = str(error)
        if not errors and not any(sources.values()):
            raise InputError(folder.nothing())
        others = folder.others
        if passed_over:
            notes = [f"not read, beside other files of their image: {some_names(passed_over)}"]
    elif owner is not None:
        sources, others = {owner: source}, []
    else:
        by_name = read_images(source, choice)
        sources, others = match_names(source, by_name, image_files)
    if others:
        notes.insert(0, f"of no image: {some_names(others)}")
    return sources, notes, errors
