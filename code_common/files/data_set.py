"""The layout of a data set: its images, their labels and the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from code_common.errors import InputError
from code_common.files.reading import IMAGE_SUFFIXES, read_json

_INSTANCE_SUFFIXES = ("_label", "_labels")
_POINT_SUFFIX = "_label_point"


@dataclass(frozen=True)
class Sample:
    """One image of a data set and the files that belong to it."""

    name: str  # the image's file name without its suffix; outputs are named after it
    image: Path
    instances: Path | None = None  # instance map, where there is one
    points: Path | None = None  # point label, where there is one


def is_image(path: Path) -> bool:
    """Whether a file name ends like an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def stem(name: str) -> str:
    """File name without its image suffix; other dots stay ('a.b.png' -> 'a.b', 'a.b' -> 'a.b')."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


class _Folder:
    """The image files of a folder by exact lower-case stem: one listing, exact names (D23)."""

    def __init__(self, path: Path):
        self.path = path
        self.files: dict[str, list[Path]] = {}
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if is_image(file):
                    self.files.setdefault(stem(file.name), []).append(file)

    def find(self, wanted: str) -> Path | None:
        found = self.files.get(wanted, [])
        if len(found) > 1:
            names = ", ".join(f.name for f in found)
            raise InputError(f"{self.path}: {names} share one name; keep one of them")
        return found[0] if found else None


def find_samples(image_dir: Path, names: Sequence[str] | None, *label_dirs: Path) -> list[Sample]:
    """Images by exact name (all of the folder where `names` is None) with their label files.

    `label_dirs` are searched for NAME_label, NAME_labels (instance maps) and NAME_label_point.
    Raises InputError for a name without a file, or one that leaves the folder.
    """
    images = _Folder(image_dir)
    if names is None:
        if not images.files:
            raise InputError(f"{image_dir}: no images (PNG, TIFF, BMP or JPEG) in this folder")
        names = [file.name for files in images.files.values() for file in files]
    folders = [_Folder(d) for d in label_dirs]

    def label(name: str, suffixes: Sequence[str]) -> Path | None:
        found = (f.find(name + s) for f in folders for s in suffixes)
        return next((path for path in found if path), None)

    samples = []
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise InputError(f"image name {name!r}: expected a plain file name without folders")
        exact = image_dir / name
        path = exact if is_image(exact) and exact.is_file() else images.find(stem(name))
        if path is None:
            raise InputError(f"{image_dir / name}: named in the split, but there is no such image")
        key = stem(path.name)
        samples.append(
            Sample(key, path, label(key, _INSTANCE_SUFFIXES), label(key, (_POINT_SUFFIX,)))
        )
    return samples


def read_split(data_dir: Path) -> dict[str, list[str]]:
    """Read train_val_test.json: set name -> image names; 'train' must not be empty.

    Sets beside train, val and test (testA, ...) are groups that scores are also given for.
    Raises InputError for anything else, and for an image in two of train, val and test.
    """
    path = data_dir / "train_val_test.json"
    if not data_dir.is_dir():
        raise InputError(f"{data_dir}: no such folder; expected images/ and train_val_test.json")
    split = read_json(path)
    ok = isinstance(split, dict) and all(
        isinstance(v, list) and all(isinstance(n, str) for n in v) for v in split.values()
    )
    if not ok:
        raise InputError(f'{path}: expected {{"train": [names], "val": [names], "test": [names]}}')
    if not split.get("train"):
        raise InputError(f"{path}: the list 'train' is empty or missing")
    seen: dict[str, str] = {}
    for part in ("train", "val", "test"):
        for name in split.setdefault(part, []):
            if stem(name) in seen:
                other = seen[stem(name)]
                where = f"twice in '{part}'" if other == part else f"in '{other}' and in '{part}'"
                raise InputError(f"{path}: {name} is {where}; an image belongs to one set once")
            seen[stem(name)] = part
    return split


def load_split(data_dir: Path) -> dict[str, list[Sample]]:
    """The samples of each set of a data set folder (see `read_split`, `find_samples`)."""
    split = read_split(data_dir)
    labels = (data_dir / "labels_instance", data_dir / "labels_point")
    return {
        part: find_samples(data_dir / "images", names, *labels) for part, names in split.items()
    }


def test_groups(split: dict[str, list[Sample]]) -> dict[str, list[str]]:
    """Names of the images in each set beside train, val and test: groups scored on their own."""
    own = {k: v for k, v in split.items() if k not in ("train", "val", "test")}
    return {group: [s.name for s in samples] for group, samples in own.items()}
