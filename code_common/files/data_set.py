"""The layout of a data set: its images, their labels and the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES
from code_common.files.layout import IMAGES, INSTANCE_LABELS, POINT_LABELS, SPLIT, label_folders
from code_common.files.reading import read_json

# What a label's name adds to that of its image; the longest come first.
INSTANCE_ENDINGS = ("_cp_masks", "_labels", "_label", "_masks", "_mask")
POINT_ENDING = "_label_point"
_INNER = (".ome", *IMAGE_SUFFIXES)


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


def stem(name: str) -> str:
    """File name without the suffix of an image: 'a.b.png' -> 'a.b', but 'a.b' -> 'a.b'."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


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


def _plain(name: str) -> str:
    """A name in composed letters and without a suffix that a tool left in it: T.ome, T.png."""
    name = normalize("NFC", name)
    inner = next((s for s in _INNER if name.lower().endswith(s) and len(name) > len(s)), "")
    return name[: len(name) - len(inner)]


class _Labels:
    """The label files of some folders, by the images that they belong to."""

    def __init__(self, folders: Sequence[Path], images: _Folder):
        self._names = {_plain(name) for name in images.files}
        self._files: dict[tuple[str, bool], list[Path]] = {}  # image, whether points -> files
        for folder in map(_Folder, folders):
            beside = folder.path.resolve() == images.path.resolve()
            for name, files in folder.files.items():
                owner, points = self._owner(name, folder.path)
                if owner != _plain(name) or not beside:  # else it is the image
                    self._files.setdefault((owner, points), []).extend(files)

    def _owner(self, name: str, folder: Path) -> tuple[str, bool]:
        """The image that a label's name is of, and whether it is a label of points.

        A name without an ending is the image's own, as far as there is such an image.
        """
        name = _plain(name)
        for ending in (POINT_ENDING, *INSTANCE_ENDINGS):
            owner = _plain(name[: -len(ending)])
            if name.lower().endswith(ending) and (owner in self._names or name not in self._names):
                return owner, ending == POINT_ENDING
        return name, folder.name == POINT_LABELS

    def find(self, image: str, points: bool) -> Path | None:
        """The label file of an image, or None. Raises InputError if there are several."""
        files = self._files.get((_plain(image), points), [])
        if len(files) > 1:
            names = ", ".join(map(str, files))
            raise InputError(f"{names}: labels of one image; keep one of them")
        return files[0] if files else None

    def of_no_image(self) -> list[Path]:
        """The label files that are of no image."""
        owned = self._files.items()
        return [f for (owner, _), files in owned if owner not in self._names for f in files]


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


def test_groups(split: dict[str, list[ImageFiles]]) -> dict[str, list[str]]:
    """The groups of images that get scores of their own: the sets beside train, val and test.

    Returns name of a group -> names of its images. A group without a test image that has a label
    is left out: it has no scores.
    """
    scored = {files.name for files in split["test"] if files.instances or files.points}
    groups = {name: files for name, files in split.items() if name not in ("train", "val", "test")}
    names = {name: [files.name for files in group] for name, group in groups.items()}
    return {name: members for name, members in names.items() if scored & set(members)}
