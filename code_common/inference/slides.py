"""Images to predict on, read in parts: tiles in the usual formats, large TIFFs, whole slides.

Whole slides and large compressed TIFFs need one of two optional packages: tiffslide
(pip install tiffslide imagecodecs) or openslide (pip install openslide-python openslide-bin).
"""

import importlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from skimage.filters import threshold_otsu

from code_common.errors import InputError, reason
from code_common.files.image_kinds import (
    SLIDE_SUFFIXES,
    Undecoded,
    check_memory,
    image_kind,
    readable,
)
from code_common.files.images import image_shape, read_image, why_no_tissue
from code_common.files.resolution import plausible, read_mpp
from code_common.files.tiff import TiffPlane, stored_shape
from code_common.inference.streaming import DiskMap
from code_common.inference.tiling import Read, at_least, reader

TIFF_SUFFIXES = (".tif", ".tiff")
READERS = ("tiffslide", "openslide")  # optional packages that open slides, in order of preference
OVERLAY_SIDE = 4096  # largest side of an overlay in pixels
LARGE = 8192**2  # pixels; a TIFF with more of them is read in parts
PIXELS_AT_ONCE = 2**24  # that are read of an image for its thumbnail
THUMBNAIL_SCALE = 32  # side of a thumbnail pixel in pixels of the image
# A pixel is tissue if its largest and smallest channel differ by a threshold within these bounds.
TISSUE_BOUNDS = (8, 25)


class _NoReader(InputError):
    """No installed package can open a slide."""


@dataclass(frozen=True)
class Slide:
    """An image that is read in parts, at one resolution."""

    shape: tuple[int, int]  # rows and columns
    read: Read
    mpp: float | None  # microns per pixel; None: unknown
    scale: float  # side of a pixel in pixels of the file
    # Makes a uint8 RGB image of 1 / THUMBNAIL_SCALE the size. None: the image is not large.
    thumbnail: Callable[[], np.ndarray] | None
    notes: tuple[str, ...] = ()  # what a user should know of how the file is read, each a line
    file_mpp: float | None = None  # microns per pixel of the file, as given or stated
    file_shape: tuple[int, int] | None = None  # rows and columns of the file; None: those of shape
    close: Callable[[], None] = lambda: None  # nothing is read after it

    @property
    def large(self) -> bool:
        """Whether the image is too large for results in one piece."""
        return self.thumbnail is not None


def _guarded(action: Callable, path: Path) -> Callable:
    """An action that reads an image: whatever a decoder raises is an InputError that names it."""

    def read(*arguments: object) -> Any:
        with readable(path, "image"):
            return action(*arguments)

    return read


def open_slide(path: Path, mpp: float | None, file_mpp: float | None) -> Slide:
    """Open an image or a whole slide; `closing` closes it.

    mpp: microns per pixel at which it is read; None: at the file's resolution. file_mpp: the
    file's resolution, whatever it states. Raises InputError if the file cannot be read, now or
    later, or if `mpp` is given and the resolution is unknown.
    """
    if not path.is_file():
        image_kind(path)  # says what it is instead
    slide = _guarded(_open, path)(path, mpp, file_mpp)
    thumbnail = slide.thumbnail and cache(_guarded(slide.thumbnail, path))
    return replace(slide, read=_guarded(slide.read, path), thumbnail=thumbnail)


def _open(path: Path, mpp: float | None, file_mpp: float | None) -> Slide:
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return _open_large(path, mpp, file_mpp)
    no_reader = None
    if not is_small(path):
        try:
            return _open_large(path, mpp, file_mpp)
        except _NoReader as error:
            no_reader = error
    notes: list[str] = []
    try:
        image = read_image(path, notes)
    except InputError as error:
        raise no_reader or error from None
    if why := why_no_tissue(image):
        notes.append(f"{path}: {why}")
    known_mpp, scale, read_at = _resolutions(path, mpp, file_mpp, read_mpp(path), notes)
    file_shape = image.shape[:2]
    if scale != 1:
        height, width = _scaled(file_shape, scale)
        check_memory(path, (height, width), image.shape[2])
        # Not stretched: a pixel is as large at the last border as at the first.
        image = image[: max(1, round(height * scale)), : max(1, round(width * scale))]
        image = cv2.resize(image, (width, height), interpolation=_resampling(scale))
    shape, known = image.shape[:2], (known_mpp, file_shape)
    return Slide(shape, reader(image), read_at, scale, None, tuple(notes), *known)


def _scaled(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Rows and columns of the pixels with a side of `scale` that fit on an image [H, W]."""
    height, width = (max(1, int(n / scale)) for n in shape)
    return height, width


def _known_mpp(
    path: Path,
    given: float | None,
    stated: tuple[float | None, float | None],
    notes: list[str],
) -> float | None:
    """Microns per pixel of a file: what is given, or what it states along x.

    A note tells where y differs, and where the file states something else than is given.
    """
    x, y = stated
    if not given and x and y and not _nearly_equal(x, y):
        notes.append(f"{path}: its pixels are no squares, {x:g} x {y:g} microns; x is taken")
    if given and x and not _nearly_equal(x, given):
        notes.append(f"{path}: states {x:g} microns per pixel; --file-mpp {given:g} is taken")
    return given or x


def _nearly_equal(one: float, other: float) -> bool:
    """Whether two resolutions differ by at most 2 %."""
    return 0.98 < one / other < 1.02


def _resolutions(
    path: Path,
    mpp: float | None,
    file_mpp: float | None,
    stated: tuple[float | None, float | None],
    notes: list[str],
) -> tuple[float | None, float, float | None]:
    """At which resolution a file is read.

    mpp and file_mpp: as in `open_slide`; stated, notes: as in `_known_mpp`. Returns microns per
    pixel of the file, the side of a pixel as read in pixels of the file, and its microns. Raises
    InputError if `mpp` is given and the resolution of the file is unknown.
    """
    known = _known_mpp(path, file_mpp, stated, notes)
    if not mpp:
        return known, 1.0, known
    if not known:
        raise InputError(f"{path}: does not say its microns per pixel; give --file-mpp")
    return known, mpp / known, mpp


def is_small(path: Path) -> bool:
    """Whether an image is read whole. A large TIFF that cannot be may still be a slide."""
    suffix = path.suffix.lower()
    if suffix not in TIFF_SUFFIXES:
        return suffix not in SLIDE_SUFFIXES
    try:
        rows, cols = image_shape(path) if image_kind(path) == "TIFF" else (0, 0)
    except InputError:
        rows, cols = stored_shape(path)
    return rows * cols <= LARGE


def tissue(thumbnail: np.ndarray) -> np.ndarray:
    """Mask [h, w] bool of the tissue on a thumbnail [h, w, 3] uint8, and two pixels around it.

    Tissue is coloured, glass is not.
    """
    colour = thumbnail.max(2).astype(int) - thumbnail.min(2)
    least = np.clip(threshold_otsu(colour) if np.ptp(colour) else 0, *TISSUE_BOUNDS)
    return _and_around(colour >= least)


def near(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mask [h, w] bool of points [N, 2] of the image on a thumbnail, and two pixels around them."""
    mask = np.zeros(shape, bool)
    mask[tuple(points.T // THUMBNAIL_SCALE)] = True
    return _and_around(mask)


def _and_around(mask: np.ndarray) -> np.ndarray:
    """A mask [h, w] bool of a thumbnail, and two pixels around it."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def tissue_tiles(mask: np.ndarray, tile: int) -> Callable[[int, int], bool]:
    """A function of (row, column) that tells whether the tile that begins there holds tissue.

    mask: what `tissue` returns. tile: side in pixels of the image.
    """

    def wanted(row: int, col: int) -> bool:
        rows = slice(row // THUMBNAIL_SCALE, -(-(row + tile) // THUMBNAIL_SCALE))
        cols = slice(col // THUMBNAIL_SCALE, -(-(col + tile) // THUMBNAIL_SCALE))
        return bool(mask[rows, cols].any())

    return wanted


def _resampling(scale: float) -> int:
    return cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR


def padded(slide: Slide, least: int) -> tuple[Read, tuple[int, int]]:
    """The slide's reader and shape. A slide with a side below `least` pixels is mirrored."""
    if min(slide.shape) >= least:
        return slide.read, slide.shape
    image = at_least(slide.read(0, 0, *slide.shape), least)
    return reader(image), image.shape[:2]


def _open_large(path: Path, mpp: float | None, file_mpp: float | None) -> Slide:
    """`open_slide` for a file that is read in parts; _NoReader if no package can open it."""
    tiff = LargeTiff.open(path) if path.suffix.lower() in TIFF_SUFFIXES else None
    if tiff and tiff.preferred:
        return tiff.as_slide(mpp, file_mpp)
    try:
        file, package = _open_with_package(path)
    except _NoReader:
        if tiff is None:
            raise
        return tiff.as_slide(mpp, file_mpp)
    with ExitStack() as opened:
        opened.callback(file.close)
        notes: list[str] = []
        stated = tuple(_stated_mpp(file, package, axis) for axis in "xy")
        if stated[0] is None and tiff:  # tiffslide does not know the resolution of OME-TIFF
            stated = read_mpp(path)
        known_mpp, scale, read_at = _resolutions(path, mpp, file_mpp, stated, notes)
        pyramid, known = PyramidFile(file, scale), (known_mpp, tuple(file.dimensions[::-1]))
        close = opened.pop_all().close
    return Slide(
        pyramid.shape, pyramid.read, read_at, scale, pyramid.thumbnail, tuple(notes), *known, close
    )


def _stated_mpp(file: Any, package: str, axis: str) -> float | None:
    """Microns per pixel along 'x' or 'y' that a slide states; None: nothing that makes sense."""
    for name in (package, "openslide"):
        with suppress(TypeError, ValueError):
            if mpp := plausible(float(file.properties.get(f"{name}.mpp-{axis}"))):
                return mpp
    return None


def _open_with_package(path: Path) -> tuple[Any, str]:
    """A slide opened with the first of READERS that can, and the name of that package."""
    errors = []
    for name in READERS:
        try:
            package = importlib.import_module(name)
        except ImportError:
            continue
        try:
            open_file = package.TiffSlide if name == "tiffslide" else package.OpenSlide
            return open_file(str(path)), name
        except Exception as error:  # each package has its own errors, and tifffile's
            errors.append(f"{name}: {reason(error)}")
    why = "; ".join(errors) or "pip install tiffslide imagecodecs"
    raise _NoReader(f"{path}: no reader for whole slides can open it ({why})")


class PyramidFile:
    """A slide that tiffslide, openslide or `LargeTiff` has opened, read at one resolution.

    The file holds the image at several resolutions, its levels. A part is read from the coarsest
    level that is fine enough, and is then reduced to the wanted resolution.
    """

    def __init__(self, file: Any, scale: float):
        """file: a TiffSlide, for example; scale: side of a pixel in pixels of the file."""
        self.file, self.scale = file, scale
        self.shape = _scaled(file.dimensions[::-1], scale)

    def region(self, row: int, col: int, rows: int, cols: int, scale: float) -> np.ndarray:
        """The part [rows, cols, 3] uint8 from (row, col).

        All four are in pixels with a side of `scale` pixels of the file.
        """
        # The tolerance accepts a level whose scale is a rounded number.
        level = self.file.get_best_level_for_downsample(scale * 1.001)
        level_scale = self.file.level_downsamples[level]
        size = [max(1, round(n * scale / level_scale)) for n in (cols, rows)]
        corner = round(col * scale), round(row * scale)
        part = np.asarray(self.file.read_region(corner, level, size))
        if part.shape[2] == 4:  # what was not scanned is transparent: white, as glass is
            part = np.where(part[..., 3:] < 255, np.uint8(255), part[..., :3])
        if part.shape[:2] != (rows, cols):
            interpolation = _resampling(scale / level_scale)
            part = cv2.resize(part, (cols, rows), interpolation=interpolation)
        return part

    def read(self, row: int, col: int, rows: int, cols: int) -> np.ndarray:
        """The part [rows, cols, 3] uint8 from (row, col), cut off at the image's border."""
        rows, cols = min(rows, self.shape[0] - row), min(cols, self.shape[1] - col)
        return self.region(row, col, rows, cols, self.scale)

    def thumbnail(self) -> np.ndarray:
        """The whole image as uint8 RGB of 1 / THUMBNAIL_SCALE the size."""
        rows, cols = (-(-n // THUMBNAIL_SCALE) for n in self.shape)
        scale = self.scale * THUMBNAIL_SCALE
        # Without a coarse level the whole image would be in memory at once.
        level = self.file.get_best_level_for_downsample(scale * 1.001)
        pixels_of_row = cols * (scale / self.file.level_downsamples[level]) ** 2
        step = max(1, int(PIXELS_AT_ONCE / pixels_of_row))
        strips = [
            self.region(row, 0, min(step, rows - row), cols, scale) for row in range(0, rows, step)
        ]
        return np.concatenate(strips)


class LargeTiff:
    """A TIFF of which only the parts that are read take memory: a pyramid of one level."""

    level_downsamples = (1.0,)

    def __init__(self, plane: TiffPlane):
        self.shape, self.read, self.notes = plane.shape, plane.read, tuple(plane.notes())
        self.path, self.dimensions = plane.path, plane.shape[::-1]
        # Packages for slides read tiles of a pyramid faster, but show only plain RGB as it is, and
        # an uncompressed image is fastest to read where it lies.
        self.preferred = not plane.is_plain or _is_mappable(plane.path)

    @classmethod
    def open(cls, path: Path) -> "LargeTiff | None":
        """The TIFF, or None if only a package for slides may know how to decode it."""
        try:
            return cls(TiffPlane(path))
        except Undecoded:
            return None

    def as_slide(self, mpp: float | None, file_mpp: float | None) -> Slide:
        """The TIFF as `open_slide` gives it."""
        found = list(self.notes)
        stated = read_mpp(self.path)
        known_mpp, scale, read_at = _resolutions(self.path, mpp, file_mpp, stated, found)
        notes, known = tuple(found), (known_mpp, self.shape)
        if scale == 1:
            return Slide(self.shape, self.read, read_at, scale, self.thumbnail, notes, *known)
        scaled = PyramidFile(self, scale)

        def thumbnail() -> np.ndarray:
            size = [-(-n // THUMBNAIL_SCALE) for n in scaled.shape[::-1]]
            return cv2.resize(self.thumbnail(), size, interpolation=cv2.INTER_AREA)

        return Slide(scaled.shape, scaled.read, read_at, scale, thumbnail, notes, *known)

    def get_best_level_for_downsample(self, scale: float) -> int:
        """The number of the only level."""
        return 0

    def read_region(self, corner: tuple[int, int], level: int, size: list[int]) -> np.ndarray:
        """The part [rows, cols, 3] uint8 from corner (column, row); size: columns, rows."""
        return self.read(corner[1], corner[0], size[1], size[0])

    def thumbnail(self) -> np.ndarray:
        """The whole image as uint8 RGB of 1 / THUMBNAIL_SCALE the size."""
        height, width = self.shape
        strips = []
        for row in range(0, height, THUMBNAIL_SCALE):
            strip = self.read(row, 0, THUMBNAIL_SCALE, width)
            size = -(-width // THUMBNAIL_SCALE), 1
            strips.append(cv2.resize(strip, size, interpolation=cv2.INTER_AREA))
        return np.concatenate(strips)


def _is_mappable(path: Path) -> bool:
    """Whether a TIFF is an uncompressed image of one piece."""
    try:
        tifffile.memmap(path, mode="r")
    except Exception:  # a compressed or broken file; tifffile has many types of errors
        return False
    return True


class Strips:
    """Parts of a slide. They are cut out of strips that neighbouring parts share."""

    HEIGHT = 256  # rows from one strip's start to the next; a taller part is read by itself

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
    """A small picture of a slide for its overlay.

    Returns the picture [h, w, 3] uint8 with sides of at most OVERLAY_SIDE pixels, the map `labels`
    at the same size [h, w] (empty without one), and the factor by which both were reduced.
    """
    factor = -(-max(slide.shape) // OVERLAY_SIDE)
    # The whole pixels of the picture, but at least one of them.
    height, width = (n // factor * factor or n for n in slide.shape)
    top, left = (min(factor // 2, n - 1) for n in slide.shape)  # give the first pixel its label
    pictures, maps = [], []
    for row in range(0, height, 64 * factor):
        rows = min(64 * factor, height - row)
        size = max(1, width // factor), max(1, rows // factor)
        part = slide.read(row, 0, rows, width)
        pictures.append(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
        if labels:
            maps.append(labels.read(row + top, left, rows - top, width - left, factor))
    empty = np.zeros((0, 0), np.uint32)
    return np.concatenate(pictures), np.concatenate(maps) if maps else empty, factor
