"""The layout of a data set: its images, their labels and the split."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, SLIDE_SUFFIXES
from code_common.files.layout import IMAGES, INSTANCE_LABELS, POINT_LABELS, SPLIT, label_folders
from code_common.files.reading import read_json

# What a label's name adds to that of its image; the longest come first.
INSTANCE_ENDINGS = ("_cp_masks", "_labels", "_label", "_masks", "_mask")
POINT_ENDING = "_label_point"
_SUFFIXES = "|".join(map(re.escape, (".ome", *IMAGE_SUFFIXES, *SLIDE_SUFFIXES, *OTHER_SUFFIXES)))
_AT_THE_END = re.compile(rf"(?<=.)({_SUFFIXES})+\Z", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class ImageFiles:
    """One image of a data set and the files that belong to it."""

    name: str  # the image's file name without its suffix; outputs are named after it
    image: Path
    instances: Path | None = None  # instance map, if there is one
    points: Path | None = None  # point label, if there is one


def is_image(path: Path) -> bool:
    """Whether a file name has the suffix of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def unread_images(folder: Path) -> list[Path]:
    """The slides and images in a folder that are of kinds that no training reads."""
    kinds = SLIDE_SUFFIXES + OTHER_SUFFIXES
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [f for f in files if f.suffix.lower() in kinds and not f.name.startswith(".")]


def stem(name: str) -> str:
    """File name without the suffix of an image: 'a.b.png' -> 'a.b', but 'a.b' -> 'a.b'."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def plain_name(name: str) -> str:
    """A name in composed letters, without what is the suffix of any image: 'T.ome.tif' -> 'T'.

    Whatever else stands behind a dot is a part of the name: 'T.7' -> 'T.7'.
    """
    return _AT_THE_END.sub("", normalize("NFC", name))


class Names:
    """Which of some images a name is of."""

    def __init__(self, images: Collection[str]):
        """images: names without the suffix of the image."""
        plain = Counter(map(plain_name, images))
        self._images = {plain_name(name): name for name in images if plain[plain_name(name)] == 1}
        self._images |= {normalize("NFC", name): name for name in images}

    def find(self, name: str) -> str | None:
        """The image that is called so or, without suffixes, nearly so; None: none, or several."""
        name = normalize("NFC", name)
        keys = name, stem(name), plain_name(name)
        return next((self._images[key] for key in keys if key in self._images), None)


class _Folder:
    """The image files of a folder, which is listed once. Names must match exactly (D23).

    But a letter with an accent may be one character or two, as file systems differ in that.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files: dict[str, list[Path]] = {}  # stem -> files
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if is_image(file):
                    self.files.setdefault(normalize("NFC", stem(file.name)), []).append(file)

    def find(self, name: str) -> Path | None:
        """The image file of that stem, or None. Raises InputError if there are several."""
        files = self.files.get(normalize("NFC", name), [])
        if len(files) > 1:
            names = ", ".join(f.name for f in files)
            raise InputError(f"{self.path}: {names} share one name; keep one of them")
        return files[0] if files else None


class _Labels:
    """The label files of some folders, by the images that they belong to."""

    def __init__(self, folders: Sequence[Path], images: _Folder):
        self._images = Names(images.files)
        self._files: dict[tuple[str | None, bool], list[Path]] = {}  # image, whether points
        for folder in map(_Folder, folders):
            beside = folder.path.resolve() == images.path.resolve()
            for name, files in folder.files.items():
                owner, points = self._owner(name, folder.path)
                if owner != name or not beside:  # else it is the image
                    self._files.setdefault((owner, points), []).extend(files)

    def _owner(self, name: str, folder: Path) -> tuple[str | None, bool]:
        """The image that a label's name is of, if any, and whether it is a label of points.

        A name without an ending is the image's own, as far as there is such an image.
        """
        whole, inner = self._images.find(name), plain_name(name)
        for ending in (POINT_ENDING, *INSTANCE_ENDINGS):
            owner = self._images.find(inner[: -len(ending)])
            if inner.lower().endswith(ending) and (owner or not whole):
                return owner, ending == POINT_ENDING
        return whole, folder.name == POINT_LABELS

    def find(self, image: str, points: bool) -> Path | None:
        """The label file of an image, or None. Raises InputError if there are several."""
        files = self._files.get((normalize("NFC", image), points), [])
        if len(files) > 1:
            names = ", ".join(map(str, files))
            raise InputError(f"{names}: labels of one image; keep one of them")
        return files[0] if files else None

    def of_no_image(self) -> list[Path]:
        """The label files that are of no image."""
        return [file for points in (False, True) for file in self._files.get((None, points), [])]


def labels_of_no_image(image_dir: Path, label_dir: Path) -> list[Path]:
    """The label files of a folder that are of no image."""
    return _Labels([label_dir], _Folder(image_dir)).of_no_image()


def label_names(name: str) -> str:
    """Which label files are looked for of an image, in words."""
    endings = ", ".join(sorted(INSTANCE_ENDINGS))
    return (
        f"{INSTANCE_LABELS}/{name}.png or .tif, {POINT_LABELS}/{name}{POINT_ENDING}.png, or "
        f"{name} with one of {endings}"
    )


def find_images(
    image_dir: Path, names: Sequence[str] | None, *label_dirs: Path
) -> list[ImageFiles]:
    """The images of a folder with their label files.

    names: exact file names, with or without suffix; None: all images of the folder. `label_dirs`
    are searched for NAME_label, NAME_labels, NAME_mask, NAME_masks, NAME_cp_masks or NAME (instance
    maps) and for NAME_label_point (point labels; NAME in labels_point/). Endings may have capitals.
    Raises InputError for a name without an image, a name with folders in it, several images or
    labels of one name, and a folder that is missing or without images.
    """
    images = _Folder(image_dir)
    if names is None:
        if not image_dir.is_dir():
            raise InputError(f"{image_dir}: no such folder")
        if not images.files:
            raise InputError(f"{image_dir}: no images (PNG, TIFF, BMP or JPEG) in this folder")
        names = [images.find(name).name for name in images.files]
    labels = _Labels(label_dirs, images)
    image_files = []
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise InputError(f"image name {name!r}: expected a plain file name without folders")
        exact = image_dir / name
        path = exact if is_image(exact) and exact.is_file() else images.find(stem(name))
        if path is None:
            raise InputError(f"{image_dir / name}: named in the split, but there is no such image")
        key = stem(path.name)
        image_files.append(ImageFiles(key, path, labels.find(key, False), labels.find(key, True)))
    return image_files


def read_split(data_dir: Path) -> dict[str, list[str]]:
    """Read train_val_test.json: name of a set -> names of its images.

    The sets train, val and test are always there. Other sets (testA, ...) are groups of images
    that get scores of their own. Raises InputError if the file is missing or holds something
    else, if 'train' is empty, or if an image is listed twice in train, val and test.
    """
    path = data_dir / SPLIT
    if not data_dir.is_dir():
        raise InputError(f"{data_dir}: no such folder; expected {IMAGES}/ and {SPLIT}")
    split = read_json(path)
    ok = isinstance(split, dict) and all(
        isinstance(v, list) and all(isinstance(n, str) for n in v) for v in split.values()
    )
    if not ok:
        raise InputError(f'{path}: expected {{"train": [names], "val": [names], "test": [names]}}')
    if not split.get("train"):
        raise InputError(f"{path}: the list 'train' is empty or missing")
    set_of: dict[str, str] = {}  # stem of an image -> the set that lists it
    for part in ("train", "val", "test"):
        for name in split.setdefault(part, []):
            other = set_of.get(stem(name))
            if other is not None:
                where = f"twice in '{part}'" if other == part else f"in '{other}' and in '{part}'"
                raise InputError(f"{path}: {name} is {where}; an image belongs to one set, once")
            set_of[stem(name)] = part
    return split


def load_split(data_dir: Path) -> dict[str, list[ImageFiles]]:
    """The images of each set of a data set folder: name of the set -> image files.

    Raises InputError as `read_split` and `find_images` do.
    """
    split = read_split(data_dir)
    images, labels = data_dir / IMAGES, label_folders(data_dir)
    return {part: find_images(images, names, *labels) for part, names in split.items()}


def remove_others(path_of: Callable[[str], Path], data_dir: Path, names: Collection[str]) -> None:
    """Remove what an earlier call left of images of a data set that are no longer asked for.

    path_of: name of an image -> its file; names: those whose files stay. Files of other names stay,
    too: they are the user's.
    """
    images = {stem(path.name) for path in (data_dir / IMAGES).iterdir() if is_image(path)}
    for name in images.difference(names):
        path_of(name).unlink(missing_ok=True)


def test_groups(split: dict[str, list[ImageFiles]]) -> dict[str, list[str]]:
    """The groups of images that get scores of their own: the sets beside train, val and test.

    Returns name of a group -> names of its images. A group without a test image that has a label
    is left out: it has no scores.
    """
    scored = {files.name for files in split["test"] if files.instances or files.points}
    groups = {name: files for name, files in split.items() if name not in ("train", "val", "test")}
    names = {name: [files.name for files in group] for name, group in groups.items()}
    return {name: members for name, members in names.items() if scored & set(members)}
