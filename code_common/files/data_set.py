"""The layout of a data set: its images, their labels and the split."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, SLIDE_SUFFIXES
from code_common.files.layout import (
    EVERY,
    IMAGES,
    INSTANCE_LABELS,
    POINT_LABELS,
    SPLIT,
    label_folders,
)
from code_common.files.names import Names, masks_among, plain_name, stem
from code_common.files.reading import read_json

# What a label's name adds to that of its image; the longest come first.
INSTANCE_ENDINGS = ("_cp_masks", "_labels", "_label", "_masks", "_mask")
POINT_ENDING = "_label_point"


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

    def named(self, name: str) -> Path:
        """The image file of a name in a split. Raises InputError if there is none."""
        if Path(name).name != name or name in ("", ".", ".."):
            raise InputError(f"image name {name!r}: expected a plain file name without folders")
        exact = self.path / name
        path = exact if is_image(exact) and exact.is_file() else self.find(stem(name))
        if path is None:
            raise InputError(f"{self.path / name}: named in the split, but there is no such image")
        return path


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


def masks_beside(image_dir: Path, named: Collection[str] = ()) -> list[Path]:
    """The files of a folder that are named as masks of the images beside them: no images.

    named: names, with or without suffix, of what is an image all the same.
    """
    files = sorted(filter(is_image, image_dir.iterdir())) if image_dir.is_dir() else []
    return [file for file in masks_among(files) if not {file.name, stem(file.name)} & {*named}]


def find_images(
    image_dir: Path, names: Sequence[str] | None, *label_dirs: Path
) -> list[ImageFiles]:
    """The images of a folder with their label files.

    names: exact file names, with or without suffix; None: all images of the folder, without the
    masks beside them. `label_dirs` are searched for NAME_label, NAME_labels, NAME_mask, NAME_masks,
    NAME_cp_masks or NAME (instance maps) and for NAME_label_point (point labels; NAME in
    labels_point/). Endings may have capitals. Raises InputError for a name without an image, a name
    with folders in it, several images or labels of one name, and a folder that is missing or
    without images.
    """
    image_files, errors = find_each(image_dir, names, *label_dirs)
    if errors:
        raise InputError(errors[0])
    return image_files


def find_each(
    image_dir: Path,
    names: Sequence[str] | None,
    *label_dirs: Path,
    named: Collection[str] = (),
) -> tuple[list[ImageFiles], list[str]]:
    """What `find_images` finds of the images that are right, and the error of each other one.

    named: as of `masks_beside`. Raises InputError for a folder that is missing or without images.
    """
    images = _Folder(image_dir)
    wanted = list(names or ())
    if names is None:
        if not image_dir.is_dir():
            raise InputError(f"{image_dir}: no such folder")
        if not images.files:
            raise InputError(f"{image_dir}: no images (PNG, TIFF, BMP or JPEG) in this folder")
        masks = set(masks_beside(image_dir, named))
        wanted = [name for name, files in images.files.items() if not masks.issuperset(files)]
    labels = _Labels(label_dirs, images)
    image_files, errors = [], []
    for name in wanted:
        try:
            path = images.find(name) if names is None else images.named(name)
            key = stem(path.name)
            maps, points = labels.find(key, points=False), labels.find(key, points=True)
            image_files.append(ImageFiles(key, path, maps, points))
        except InputError as error:
            errors.append(str(error))
    return image_files, errors


def read_split(data_dir: Path) -> dict[str, list[str]]:
    """Read train_val_test.json: name of a set -> names of its images.

    The sets train, val and test are always there. Other sets (testA, ...) are groups of images
    that get scores of their own. Raises InputError if the file is missing or holds something
    else, if 'train' is empty, if an image is listed twice in train, val and test, or if a set has
    the name of all test images together.
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
    if EVERY in split:
        raise InputError(
            f"{path}: a set is called '{EVERY}', which stands for all test images; rename it"
        )
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


def split_before(data_dir: Path) -> tuple[dict[str, list[str]], str]:
    """The split that is there, if any: name of a set -> names of its images; and what is wrong with
    it, '' where nothing is.
    """
    if not (data_dir / SPLIT).exists():
        return {}, ""
    try:
        return read_split(data_dir), ""
    except InputError as error:
        return {}, str(error)


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
