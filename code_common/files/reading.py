"""Strict reading of images, label images, tables and JSON. An InputError names a bad file."""

import csv
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from code_common.errors import InputError, reason

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
# Pillow's other formats are not used in microscopy, and their parsers have had security bugs.
_FORMATS = ("PNG", "TIFF", "BMP", "JPEG")


def read_json(path: Path) -> object:
    """Read a JSON file. Raises InputError if it does not exist or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from None


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read a numeric CSV table: column name -> float64 [N].

    Lines that begin with '#' are notes and are skipped. Raises InputError if the file does not
    exist, is empty, or holds something else than numbers below its header line.
    """
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
    """Read points [N, 2] int64 (row, column) from a CSV table with the columns row and col.

    Places are rounded to pixels. Raises InputError if a column is missing, or if a point lies
    outside an image of `shape` (rows, columns).
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
    """Silence OpenCV's log while it tries to read a file. The caller reports a failure."""
    log = getattr(cv2.utils, "logging", None)  # OpenCV 4.9 has no such module
    before = log.setLogLevel(log.LOG_LEVEL_SILENT) if log else None
    try:
        yield
    finally:
        if log:
            log.setLogLevel(before)


def _read_raw(path: Path) -> np.ndarray:
    """Decode an image file: [H, W] or [H, W, C] in the file's depth. Raises InputError."""
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file that cannot be read raises an error
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
        # Pillow cannot read a TIFF with 16-bit RGB; OpenCV can.
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
    """Read an image as [H, W, 3] uint8 RGB.

    Grey is repeated in three channels, 16 bits are scaled to 8, and transparent pixels are laid
    over white, as on a slide. EXIF orientation is ignored. Raises InputError if the file cannot be
    read, or if its pixels are not grey, RGB or RGBA of 8 or 16 bits.
    """
    array = _read_raw(path)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype in (np.uint16, np.int32):
        # Pillow's convert("RGB") would clip 20000 to 255. The values are scaled instead.
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
    """Read an integer label image as int32 [H, W].

    Raises InputError if the file cannot be read, if it is a colour image, or if its size is not
    `shape` (rows, columns), the shape of its image.
    """
    label = _read_raw(path)
    if label.ndim == 3 and label.shape[2] > 1:
        channels_are_equal = (label[..., :3] == label[..., :1]).all()
        if not channels_are_equal:
            raise InputError(f"{path}: a colour image; expected one integer id per pixel")
        label = label[..., 0]
    label = label.reshape(label.shape[:2])
    if label.dtype.kind not in "iub":
        raise InputError(f"{path}: {label.dtype} pixels; expected integer ids")
    if label.shape != tuple(shape):
        hint = " (it looks rotated)" if label.shape == tuple(shape)[::-1] else ""
        raise InputError(
            f"{path}: {label.shape[1]} x {label.shape[0]} pixels, but its image has "
            f"{shape[1]} x {shape[0]}{hint}"
        )
    return label.astype(np.int32)


def read_prob(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a probability map [H, W] in 0..1 that `write_prob` wrote.

    Raises InputError as `read_label` does.
    """
    return read_label(path, shape) / 65535


def read_instances(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read an instance map: int32 [H, W], 0 background, one id per nucleus.

    An id may have several components. Raises InputError as `read_label` does, for negative ids,
    and for a binary mask. Such a mask must not be labelled again silently (D4).
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


def image_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of an image, from its header if Pillow can read it.

    Raises InputError as `read_image` does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return image.height, image.width
    except (OSError, Image.DecompressionBombError):
        return read_image(path).shape[:2]
