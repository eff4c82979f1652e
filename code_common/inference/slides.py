"""Images to predict on, read in parts: tiles in the usual formats, large TIFFs, whole slides.

Whole slides, and large TIFFs that are compressed, need one of two optional packages: tiffslide
(pip install tiffslide imagecodecs) or openslide (pip install openslide-python openslide-bin).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from skimage.filters import threshold_otsu

from code_common.errors import InputError, reason
from code_common.files.reading import IMAGE_SUFFIXES, image_shape, read_image
from code_common.inference.streaming import DiskMap
from code_common.inference.tiling import Read, at_least, reader

SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide")
READERS = ("tiffslide", "openslide")
PICTURE = 4096  # longest side in pixels of an overlay
LARGE = 8192**2  # pixels from which on an image is read in parts
THUMBNAIL = 32  # pixels of the image along one of its thumbnail
# Bounds of the difference between a pixel's largest and smallest channel that makes it tissue.
TISSUE_BOUNDS = (8, 25)


class _NoReader(InputError):
    pass


@dataclass(frozen=True)
class Slide:
    """An image that is read in parts, at one resolution."""

    shape: tuple[int, int]  # rows and columns
    read: Read
    mpp: float | None  # microns per pixel, where known
    scale: float  # pixels of the file along one of these
    thumbnail: Callable[[], np.ndarray] | None  # of a large one: uint8 RGB, 1 / THUMBNAIL the size

    @property
    def large(self) -> bool:
        """Whether it is too large for results in one piece."""
        return self.thumbnail is not None


def is_slide(path: Path) -> bool:
    """Whether a file name ends like an image or a whole slide."""
    suffixes = SLIDE_SUFFIXES + IMAGE_SUFFIXES
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def find_slides(given: list[Path]) -> dict[str, Path]:
    """The images among files and folders (not their subfolders), by the name of their results.

    Raises InputError for a path that is absent, a folder without images, two of one name.
    """
    found: dict[str, Path] = {}
    for path in given:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        files = sorted(filter(is_slide, path.iterdir())) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no images and no slides in this folder")
        for file in files:
            name = file.stem if is_slide(file) else file.name
            if name in found:
                raise InputError(f"{found[name]} and {file} share one name; keep one of them")
            found[name] = file
    return found


def open_slide(path: Path, mpp: float | None, file_mpp: float | None) -> Slide:
    """Open an image or a whole slide to be read at `mpp` microns per pixel, or as it is.

    `file_mpp` says the file's own resolution, where it does not say it itself. Raises InputError
    where the file cannot be read, or a resolution is asked for and the file's is unknown.
    """
    suffix, unread = path.suffix.lower(), None
    if suffix in SLIDE_SUFFIXES:
        return _open_large(path, mpp, file_mpp)
    if suffix in (".tif", ".tiff"):
        try:
            small = np.prod(image_shape(path)) <= LARGE
        except InputError:
            small = False  # maybe a TIFF that only the readers of slides understand
        if not small:
            try:
                return _open_large(path, mpp, file_mpp)
            except _NoReader as error:
                unread = error
    try:
        image, scale = read_image(path), 1.0
    except InputError as error:
        raise unread or error from None
    if mpp and file_mpp and mpp != file_mpp:
        scale = mpp / file_mpp
        size = [max(1, round(n / scale)) for n in image.shape[:2]]
        image = cv2.resize(image, size[::-1], interpolation=_resampling(scale))
    return Slide(image.shape[:2], reader(image), mpp or file_mpp, scale, None)


def tissue(thumbnail: np.ndarray) -> np.ndarray:
    """Which pixels [h, w] of a thumbnail are tissue, or next to it: it has colour, glass none."""
    colour = thumbnail.max(2).astype(int) - thumbnail.min(2)
    least = np.clip(threshold_otsu(colour) if np.ptp(colour) else 0, *TISSUE_BOUNDS)
    return cv2.dilate((colour >= least).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def tissue_tiles(mask: np.ndarray, tile: int) -> Callable[[int, int], bool]:
    """A function that says of a tile at (row, column) whether it holds tissue."""

    def wanted(row: int, col: int) -> bool:
        rows, cols = (slice(n // THUMBNAIL, -(-(n + tile) // THUMBNAIL)) for n in (row, col))
        return bool(mask[rows, cols].any())

    return wanted


def _resampling(scale: float) -> int:
    return cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR


def padded(slide: Slide, least: int) -> tuple[Read, tuple[int, int]]:
    """The slide's reader and shape, mirrored where a side is shorter than `least`."""
    if min(slide.shape) >= least:
        return slide.read, slide.shape
    image = at_least(slide.read(0, 0, *slide.shape), least)
    return reader(image), image.shape[:2]


def _open_large(path: Path, mpp: float | None, file_mpp: float | None) -> Slide:
    if path.suffix.lower() in (".tif", ".tiff") and not mpp:
        mapped = _open_mapped(path, file_mpp)
        if mapped:
            return mapped
    file, errors = None, []
    for name in READERS:
        try:
            reader = importlib.import_module(name)
        except ImportError:
            continue
        try:
            file = (reader.TiffSlide if name == "tiffslide" else reader.OpenSlide)(str(path))
            break
        except Exception as error:  # each reader has its own errors, tifffile's among them
            errors.append(f"{name}: {reason(error)}")
    if file is None:
        why = "; ".join(errors) or "pip install tiffslide imagecodecs"
        raise _NoReader(f"{path}: no reader for whole slides can open it ({why})")
    own = file.properties.get(f"{name}.mpp-x") or file.properties.get("openslide.mpp-x")
    own_mpp = file_mpp or (float(own) if own else None)
    if mpp and not own_mpp:
        raise InputError(f"{path}: does not say its microns per pixel; give --file-mpp")
    scale = mpp / own_mpp if mpp and own_mpp else 1.0
    shape = tuple(int(n / scale) for n in file.dimensions[::-1])

    def region(row: float, col: float, rows: int, cols: int, scale: float) -> np.ndarray:
        """[rows, cols] from (row, col), all in pixels that are `scale` of the file's."""
        level = file.get_best_level_for_downsample(scale * 1.001)
        down = file.level_downsamples[level]
        size = [max(1, round(n * scale / down)) for n in (cols, rows)]
        corner = round(col * scale), round(row * scale)
        part = np.asarray(file.read_region(corner, level, size))
        if part.shape[2] == 4:  # transparent outside of what was scanned, where glass would be
            part = np.where(part[..., 3:] < 255, np.uint8(255), part[..., :3])
        if part.shape[:2] != (rows, cols):
            part = cv2.resize(part, (cols, rows), interpolation=_resampling(scale / down))
        return part

    def read(row: int, col: int, rows: int, cols: int) -> np.ndarray:
        rows, cols = min(rows, shape[0] - row), min(cols, shape[1] - col)
        try:
            return region(row, col, rows, cols, scale)
        except Exception as error:
            raise InputError(
                f"{path}: cannot be read at row {row}, column {col} ({reason(error)})"
            ) from None

    def thumbnail() -> np.ndarray:
        small = [-(-n // THUMBNAIL) for n in shape]
        return region(0, 0, *small, scale * THUMBNAIL)

    return Slide(shape, read, mpp or own_mpp, scale, thumbnail)


def _open_mapped(path: Path, mpp: float | None) -> Slide | None:
    """A TIFF that is not compressed: mapped, so that only what is read takes memory; else None."""
    try:
        image = tifffile.memmap(path, mode="r")
    except Exception:
        return None
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        return None
    shape = image.shape[:2]
    del image

    def read(row: int, col: int, rows: int, cols: int) -> np.ndarray:
        # Mapped anew each time: what was read before need not stay in memory.
        return np.array(tifffile.memmap(path, mode="r")[row : row + rows, col : col + cols])

    def thumbnail() -> np.ndarray:
        strips = []
        for row in range(0, shape[0], THUMBNAIL):
            strip = read(row, 0, THUMBNAIL, shape[1])
            small = (-(-shape[1] // THUMBNAIL), 1)
            strips.append(cv2.resize(strip, small, interpolation=cv2.INTER_AREA))
        return np.concatenate(strips)

    return Slide(shape, read, mpp, 1.0, thumbnail)


class Strips:
    """Parts of a slide, read in strips that neighbouring parts share."""

    HEIGHT = 256

    def __init__(self, slide: Slide):
        self.slide, self.first, self.strip = slide, -1, None

    def read(self, row: int, col: int, rows: int, cols: int) -> np.ndarray:
        """The part [rows, cols, 3] uint8 from (row, col)."""
        if rows > self.HEIGHT:
            return self.slide.read(row, col, rows, cols)
        first = row // self.HEIGHT * self.HEIGHT
        if first != self.first:
            end = min(first + 2 * self.HEIGHT, self.slide.shape[0])
            self.strip = self.slide.read(first, 0, end - first, self.slide.shape[1])
            self.first = first
        return self.strip[row - first : row - first + rows, col : col + cols]


def reduced(slide: Slide, labels: DiskMap | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    """A picture of a slide of at most PICTURE pixels, its labels, and by what it was reduced."""
    by = -(-max(slide.shape) // PICTURE)
    height, width = (n // by * by for n in slide.shape)
    pictures, maps = [], []
    for row in range(0, height, 64 * by):
        rows = min(64 * by, height - row)
        size = width // by, rows // by
        part = slide.read(row, 0, rows, width)
        pictures.append(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
        if labels:  # the pixel in the middle
            maps.append(labels.read(row + by // 2, by // 2, rows - by // 2, width - by // 2, by))
    empty = np.zeros((0, 0), np.uint32)
    return np.concatenate(pictures), np.concatenate(maps) if maps else empty, by
