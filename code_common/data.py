"""Files: the layout of a data set, strict reading, and writing whole or not at all."""

import csv
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from code_common.errors import InputError, reason

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
# An allow-list: the other formats Pillow knows are no microscopy and have had the parser bugs.
_FORMATS = ("PNG", "TIFF", "BMP", "JPEG")
_INSTANCE_SUFFIXES = ("_label", "_labels")
_POINT_SUFFIX = "_label_point"

# ------------------------------------------------------------------------------ writing


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears whole or not at all: temporary name in the same folder, fsync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_json(path: Path, value: object, indent: int | None = 1) -> None:
    """Write JSON, readable (or with indent None small) and strict (no NaN)."""
    write_bytes(path, (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode())


def write_png(path: Path, array: np.ndarray) -> None:
    """Write [H, W] uint8 or uint16, or [H, W, 3] uint8 RGB."""
    ok, data = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)
    assert ok, f"cannot encode {array.dtype} {array.shape} as PNG"
    write_bytes(path, data.tobytes())


def write_prob(path: Path, prob: np.ndarray) -> None:
    """Write a probability map [H, W] in 0..1 as a 16-bit PNG: 65535 is 1."""
    write_png(path, np.rint(prob * 65535).astype(np.uint16))


def write_instances(path: Path, instances: np.ndarray) -> None:
    """Write an instance map [H, W] as a deflated TIFF: uint16, or int32 where ids need it."""
    small = instances.max(initial=0) <= np.iinfo(np.uint16).max
    buffer = io.BytesIO()
    image = Image.fromarray(instances.astype(np.uint16 if small else np.int32))
    image.save(buffer, format="TIFF", compression="tiff_adobe_deflate")
    write_bytes(path, buffer.getvalue())


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence], note: str = ""
) -> None:
    """Write a CSV table with one header line, and a '# note' line above it where one is given."""
    text = io.StringIO()
    if note:
        text.write(f"# {note}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_points(path: Path, points: np.ndarray, note: str = "") -> None:
    """Write points [N, 2] as a CSV table row,col in pixels."""
    write_table(path, ("row", "col"), points.tolist(), note)


# ------------------------------------------------------------------------------ reading


def read_json(path: Path) -> object:
    """Read JSON; InputError names the file where it is absent or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from None


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read a numeric CSV table: column name -> float64 [N]. Lines that begin with '#' are notes."""
    try:
        lines = [ln for ln in Path(path).read_text(encoding="utf-8").splitlines() if ln.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    rows = list(csv.reader(ln for ln in lines if not ln.startswith("#")))
    if not rows:
        raise InputError(f"{path}: empty; expected a CSV table with a header line")
    header, body = [c.strip() for c in rows[0]], rows[1:]
    try:
        values = np.array([[float(c) for c in row] for row in body], dtype=np.float64)
        values = values.reshape(len(body), len(header))
    except ValueError:
        raise InputError(
            f"{path}: expected numbers in {len(header)} columns ({', '.join(header)}) on every line"
        ) from None
    return {name: values[:, i] for i, name in enumerate(header)}


def read_points(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read points [N, 2] int64 (row, column) of a CSV table with the columns row and col.

    Raises InputError for another table, or a point outside of an image of this shape.
    """
    table = read_table(path)
    if not {"row", "col"} <= set(table):
        raise InputError(f"{path}: expected the columns row,col")
    places = np.rint(np.stack([table["row"], table["col"]], 1))
    points = np.where(np.isfinite(places), places, -1).astype(np.int64)
    if not ((points >= 0) & (points < shape)).all():
        raise InputError(f"{path}: a point lies outside of its image of {shape[1]} x {shape[0]}")
    return points


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV says nothing of a file that it cannot read: the error will."""
    log = getattr(cv2.utils, "logging", None)  # OpenCV 4.9 has no such module
    before = log.setLogLevel(log.LOG_LEVEL_SILENT) if log else None
    try:
        yield
    finally:
        if log:
            log.setLogLevel(before)


def _read_raw(path: Path) -> np.ndarray:
    """Decode a file fully: [H, W] or [H, W, C] in the file's own depth."""
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file is read, or an error says why not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
                    image = image.convert("RGBA" if "transparency" in image.info else "RGB")
                array = np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(
            f"{path}: more than {Image.MAX_IMAGE_PIXELS:,} pixels; cut it into tiles first"
        ) from None
    except Exception as error:  # a broken file raises almost anything: OSError, SyntaxError, ...
        # Pillow has no 16-bit RGB TIFF; OpenCV has.
        array = None
        if path.suffix.lower() in (".tif", ".tiff") and path.is_file():
            with _quiet_opencv(), suppress(cv2.error):
                array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None:
            raise InputError(
                f"{path}: not a readable PNG, TIFF, BMP or JPEG image ({reason(error)})"
            ) from None
        if array.ndim == 3:
            array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    if array.size == 0:
        raise InputError(f"{path}: the image has no pixels")
    return array


def read_image(path: Path) -> np.ndarray:
    """Read an image as [H, W, 3] uint8 RGB, in the pixel order of the file (EXIF is not applied).

    Grey is repeated, 16 bit is scaled to 8, transparency is laid over white, as on a slide.
    Raises InputError naming the file.
    """
    array = _read_raw(path)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype in (np.uint16, np.int32):
        # 'convert("RGB")' would clip 20000 to 255; integer depth is scaled instead.
        array = (np.clip(array, 0, 65535).astype(np.uint32) // 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{path}: {array.dtype} pixels; expected 8 or 16 bit integers")
    if array.ndim == 2:
        array = array[..., None]
    colour, alpha = array, None
    if array.shape[2] in (2, 4):
        colour, alpha = array[..., :-1], array[..., -1:].astype(np.uint16)
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    if colour.shape[2] != 3:
        raise InputError(f"{path}: {array.shape[2]} channels; expected grey, RGB or RGBA")
    if alpha is not None and alpha.min() < 255:
        colour = ((colour * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)
    return np.ascontiguousarray(colour)


def read_label(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read an integer label image as int32 [H, W] and check that it fits its image.

    Raises InputError where it is no label image or its size differs from `shape`.
    """
    label = _read_raw(path)
    if label.ndim == 3 and label.shape[2] > 1:
        same = (label[..., :3] == label[..., :1]).all()
        if not same:
            raise InputError(f"{path}: a colour image; expected one integer id per pixel")
        label = label[..., 0]
    label = label.reshape(label.shape[:2])
    if label.dtype.kind not in "iub":
        raise InputError(f"{path}: {label.dtype} pixels; expected integer ids")
    if label.shape != tuple(shape):
        turned = " (it looks rotated)" if label.shape == tuple(shape)[::-1] else ""
        raise InputError(
            f"{path}: {label.shape[1]} x {label.shape[0]} pixels, but its image has "
            f"{shape[1]} x {shape[0]}{turned}"
        )
    return label.astype(np.int32)


def read_prob(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a probability map [H, W] of `write_prob`; raises InputError as `read_label` does."""
    return read_label(path, shape) / 65535


def read_instances(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read an instance map: int32 [H, W], 0 background, one id per nucleus.

    An id may have several components. Raises InputError for a binary mask (D4: it must not be
    re-labelled silently) and where the size differs from `shape`.
    """
    instances = read_label(path, shape)
    ids = np.unique(instances)
    if ids[0] < 0:
        raise InputError(f"{path}: negative ids; expected 0 for background and one id per nucleus")
    if len(ids) == 2 and ids[0] == 0:
        parts = cv2.connectedComponents((instances > 0).astype(np.uint8))[0] - 1
        if parts > 1 and ids[1] in (1, 255, 65535):
            raise InputError(
                f"{path}: a binary mask ({parts} components share the value {ids[1]}); "
                "expected one id per nucleus"
            )
    return instances


# ------------------------------------------------------------------------------ a data set


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


def image_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of an image, from its header alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return image.height, image.width
    except (OSError, Image.DecompressionBombError):
        return read_image(path).shape[:2]
