"""The layout of a data set: its images, their labels and the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES
from code_common.files.layout import IMAGES, SPLIT, label_folders
from code_common.files.reading import read_json

_INSTANCE_SUFFIXES = ("_label", "_labels", "_mask", "_masks", "_cp_masks")
_POINT_SUFFIX = "_label_point"


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


def _find_label(folders: list[_Folder], name: str, suffixes: Sequence[str]) -> Path | None:
    """The first label file of an image, by folder and then by suffix, or None."""
    for folder in folders:
        for suffix in suffixes:
            path = folder.find(name + suffix)
            if path:
                return path
    return None


def find_images(
    image_dir: Path, names: Sequence[str] | None, *label_dirs: Path
) -> list[ImageFiles]:
    """The images of a folder with their label files.

    names: exact file names, with or without suffix; None: all images of the folder. `label_dirs`
    are searched for NAME_label, NAME_labels, NAME_mask, NAME_masks or NAME_cp_masks (instance maps)
    and for NAME_label_point (point labels).
    Raises InputError for a name without an image, a name with folders in it, several files of one
    name, and a folder without images.
    """
    images = _Folder(image_dir)
    if names is None:
        if not images.files:
            raise InputError(f"{image_dir}: no images (PNG, TIFF, BMP or JPEG) in this folder")
        names = [file.name for files in images.files.values() for file in files]
    folders = [_Folder(path) for path in label_dirs]
    image_files = []
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise InputError(f"image name {name!r}: expected a plain file name without folders")
        exact = image_dir / name
        path = exact if is_image(exact) and exact.is_file() else images.find(stem(name))
        if path is None:
            raise InputError(f"{image_dir / name}: named in the split, but there is no such image")
        key = stem(path.name)
        instances = _find_label(folders, key, _INSTANCE_SUFFIXES)
        points = _find_label(folders, key, (_POINT_SUFFIX,))
        image_files.append(ImageFiles(key, path, instances, points))
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
