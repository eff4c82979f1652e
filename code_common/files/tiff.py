"""TIFF files of any size: which image is read, what its samples mean, and any part of it."""

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile

from code_common.errors import InputError
from code_common.files.image_kinds import check_memory, readable
from code_common.files.pixels import (
    Colour,
    Decoded,
    Levels,
    all_notes,
    extremes_of,
    levels_of,
    needs_extremes,
    stored_part,
    to_rgb,
    turned,
    turned_shape,
    valid_orientation,
)
from code_common.files.tiff_codecs import JPEGS
from code_common.files.tiff_samples import PageSamples

_COLOURS = {0: Colour.WHITE_IS_ZERO, 1: Colour.GREY, 2: Colour.RGB, 3: Colour.PALETTE,
            5: Colour.CMYK}  # fmt: skip
_YCBCR = 6
_ALPHAS = (1, 2)  # kinds of extra samples: alpha, associated or not
_AXES = {"Z": "z-plane", "T": "time point", "C": "channel"}
_BESIDE = ("Thumbnail", "Label", "Macro")  # what scanners put beside a slide
_SCAN_ROWS = 1024  # rows at a time, where all of an image is looked at


class TiffPlane:
    """The first image of a TIFF, of which any part can be read.

    Memory holds the part that is read, and some strips or tiles around it.
    """

    def __init__(self, path: Path, plane: int | None = None):
        """plane: which one of a stack, from 1; None: the first, as `others` says.

        Raises InputError if its pixels are none that are read, and Undecoded as PageSamples.
        """
        self.path = Path(path)
        with opened_tiff(self.path) as tiff:
            pages, others = choose_pages(self.path, tiff, plane)
            plane = _describe(self.path, pages[0][0], len(pages), others)
            self._parts = [PageSamples(self.path, *each) for each in pages]
            self._plane = replace(plane, lossy=self._parts[0].lossy)
        self.stored_shape = self._parts[0].shape[:2]
        self.orientation = self._plane.orientation
        self.shape = turned_shape(self.stored_shape, self.orientation)

    @property
    def others(self) -> str:
        """Which of the file's images this is; empty: the only one, or the one asked for."""
        return self._plane.others

    @property
    def is_plain(self) -> bool:
        """Whether each pixel is 8 bits of red, green and blue, to be shown as they are stored."""
        plane, part = self._plane, self._parts[0]
        is_rgb = plane.colour is Colour.RGB and part.page.shaped[0] == 1 and part.shape[2] == 3
        return is_rgb and part.dtype == np.uint8 and self.orientation == 1 and not plane.notes

    def decode(self) -> Decoded:
        """All of the image. Raises InputError if it is broken or too large for the memory."""
        pixel_bytes = sum(part.dtype.itemsize * part.shape[2] for part in self._parts)
        check_memory(self.path, self.stored_shape, 2 * pixel_bytes + 3)
        return self._decode(0, 0, *self.stored_shape)

    def read(self, row: int, col: int, rows: int, cols: int) -> np.ndarray:
        """The part [rows, cols, 3] uint8 RGB from (row, col), cut off at the image's border.

        Raises InputError if the file cannot be read there.
        """
        part = row, col, min(rows, self.shape[0] - row), min(cols, self.shape[1] - col)
        decoded = self._decode(*stored_part(part, self.stored_shape, self.orientation))
        return turned(to_rgb(decoded, self.levels), self.orientation)

    @cached_property
    def levels(self) -> Levels:
        """How samples become 8 bits. All of the image is looked at, if it has more of them."""
        extremes, (rows, cols) = None, self.stored_shape
        if needs_extremes(self._plane):
            for row in range(0, rows, _SCAN_ROWS):
                part = extremes_of(self._decode(row, 0, min(_SCAN_ROWS, rows - row), cols))
                extremes = extremes.join(part) if extremes else part
        return levels_of(self._plane, extremes)

    def notes(self) -> list[str]:
        """What a user should know of the file, each in a line that names it."""
        return all_notes(self._plane, self.levels)

    def _decode(self, row: int, col: int, rows: int, cols: int) -> Decoded:
        """A part of the stored image."""
        with readable(self.path, "TIFF"):
            parts = [part.read(row, col, rows, cols) for part in self._parts]
            samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
            return replace(self._plane, samples=samples)


# A page, and where its samples begin if it is one of a stack that has the tags of its first page.
_Page = tuple[tifffile.TiffPage, int | None]


@contextmanager
def opened_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """An open TIFF. Raises InputError if it is broken; errors in the block, too."""
    # Not multifile: pages of other files of an OME data set are none of this image.
    with readable(path, "TIFF"), tifffile.TiffFile(path, _multifile=False) as tiff:
        if not len(tiff.pages):
            raise InputError(f"{path}: not a readable TIFF (no image in it; was it cut off?)")
        yield tiff


def stored_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of the largest page of a TIFF that `TiffPlane` refuses; 0, 0 of no TIFF."""
    with suppress(InputError), opened_tiff(path) as tiff:
        _check_chain(path, tiff)
        return max(((page.imagelength, page.imagewidth) for page in tiff.pages), key=math.prod)
    return 0, 0


def choose_pages(
    path: Path, tiff: tifffile.TiffFile, plane: int | None = None
) -> tuple[list[_Page], str]:
    """The page of the image that is read, or three that are its colours.

    Of several images it is the largest, and of equals the first: previews lie beside it. Returns
    the pages and which of the file's images they are; empty if there is no other, or for a plane
    that is asked for by its number, from 1. Raises InputError if the channels are neither one nor
    three, and if there is no such plane.
    """
    _check_chain(path, tiff)
    images = [series for series in tiff.series if _is_image(series)] or tiff.series
    if not images:
        raise InputError(f"{path}: a TIFF without an image")
    pixels = [series.keyframe.imagelength * series.keyframe.imagewidth for series in images]
    number = pixels.index(max(pixels))
    series = images[number]
    page = series.keyframe
    axes, sizes = _axes_of_pages(series, page)
    colours = np.zeros((1, len(sizes)), int)  # place of each page among the series' pages
    others = [f"image {number + 1} of {len(images)}"] if len(images) > 1 else []
    for k, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        if axis in "CS" and size > 1 and page.samplesperpixel == 1:
            if size != 3 or len(colours) > 1:
                raise InputError(f"{path}: {size} channels; expected grey, RGB or RGBA")
            colours = np.zeros((3, len(sizes)), int)
            colours[:, k] = range(3)
        elif size > 1 and plane is not None:
            if not 1 <= plane <= size:
                raise InputError(f"{path}: {size} planes; expected --plane 1 to {size}")
            colours[:, k], plane = plane - 1, None  # of another axis there is the first
        elif size > 1:
            others.append(f"{_AXES.get(axis, 'page')} 1 of {size}")
    numbers = np.ravel_multi_index(tuple(colours.T), sizes) if sizes else [0]
    pages = [_page_of(path, series, int(number)) for number in numbers]
    if len({each.hash for each, _ in pages}) > 1:
        raise InputError(f"{path}: three channels that differ in size or kind; expected RGB")
    return pages, ", ".join(others)


def _check_chain(path: Path, tiff: tifffile.TiffFile) -> None:
    """Raise InputError if a page lies outside of the file, which tifffile passes over, or if the
    pages point in a circle, which it follows."""
    file, form, seen = tiff.filehandle, tiff.tiff, set()
    offset = tiff.pages.first.offset
    while offset:
        if offset in seen:
            raise InputError(f"{path}: a damaged TIFF; its pages point in a circle")
        seen.add(offset)
        file.seek(offset)
        tags = file.read(form.tagnosize)
        if len(tags) == form.tagnosize:
            file.seek(struct.unpack(form.tagnoformat, tags)[0] * form.tagsize, 1)
        following = file.read(form.offsetsize)
        if len(following) < form.offsetsize:
            raise InputError(f"{path}: a page lies outside of the file; was it cut off?")
        offset = struct.unpack(form.offsetformat, following)[0]


def _is_image(series: tifffile.TiffPageSeries) -> bool:
    """Whether a series is an image, and no reduced one, no mask and nothing beside a slide."""
    page = series.keyframe
    return not (page.is_reduced or page.is_mask or series.name in _BESIDE)


def _axes_of_pages(
    series: tifffile.TiffPageSeries, page: tifffile.TiffPage
) -> tuple[str, tuple[int, ...]]:
    """The axes along which a series has pages, and their sizes. Some of length 1 may be missing."""
    axes, sizes = series.axes, series.shape  # the names that every version of tifffile knows
    row = axes.find("Y")
    end = row - 1 if page.shaped[0] > 1 else row  # planes of colours belong to the page
    plane = page.imagelength, page.imagewidth
    if end < 0 or axes[row : row + 2] != "YX" or tuple(sizes[row : row + 2]) != plane:
        return "I", (len(series),)  # axes that do not fit the pages say nothing
    return axes[:end], tuple(sizes[:end])


def _page_of(path: Path, series: tifffile.TiffPageSeries, number: int) -> _Page:
    """A page of a series by its number."""
    key = series.keyframe
    if number < len(series):
        page = series[number]
        if page is None:
            raise InputError(f"{path}: a page is missing; was the file cut off?")
        if not getattr(page, "is_virtual", False):  # older versions of tifffile lack it
            return page.aspage(), None
    if series.dataoffset is None:
        raise InputError(f"{path}: a page is missing; was the file cut off?")
    return (key, None) if number == 0 else (key, series.dataoffset + number * key.nbytes)


def _describe(path: Path, page: tifffile.TiffPage, pages: int, others: str) -> Decoded:
    """What the samples of a page mean. They themselves are left out.

    pages: how many make the image. Raises InputError if no colours can be made of them.
    """
    count, bits = page.samplesperpixel, page.bitspersample
    if page.imagedepth > 1:
        raise InputError(f"{path}: a volume; expected an image")
    if page.dtype is None or not isinstance(bits, int):
        raise InputError(f"{path}: samples of {bits} bits; expected 8 or 16")
    colour, notes = _colour(path, page), [f"{others} is read"] if others else []
    extra = _extra_samples(page, colour)
    untagged = pages == 3 or extra[:2] == [0, 0]
    if untagged and colour is Colour.GREY:
        colour, extra = Colour.RGB, extra[2:]
        notes.append("its 3 channels are read as red, green and blue")
    alphas = [k for k, kind in enumerate(extra) if kind in _ALPHAS]
    unknown = len(extra) - len(alphas[:1])
    if unknown and (untagged or colour not in (Colour.RGB, Colour.CMYK)):
        raise InputError(f"{path}: {count} channels; expected grey, RGB or RGBA")
    if unknown:
        notes.append(f"{unknown} of {count} samples per pixel are left out")
    return Decoded(
        path,
        np.zeros((0, 0, 0), page.dtype),
        colour,
        bits,
        alpha=colour.count + alphas[0] if alphas else None,
        associated=bool(alphas) and extra[alphas[0]] == 1,
        palette=_palette(path, page) if colour is Colour.PALETTE else None,
        orientation=valid_orientation(page.tags.valueof(274)),
        largest=_largest(page.tags.valueof(281)),
        others=others,
        notes=tuple(notes),
    )


def _colour(path: Path, page: tifffile.TiffPage) -> Colour:
    """The kind of a page's colours. Raises InputError for a kind that is not read."""
    photometric, count = int(page.photometric), page.samplesperpixel
    if 262 not in page.tags and page.compression not in JPEGS:
        photometric = 2 if count in (3, 4) else 1
    if photometric == _YCBCR and page.compression in JPEGS and page.planarconfig == 1:
        photometric = 2  # the decoder makes RGB of it
    colour = _COLOURS.get(photometric)
    if colour is None:
        name = getattr(page.photometric, "name", photometric)
        raise InputError(f"{path}: a TIFF with {name} pixels; expected grey, RGB or a palette")
    if count < colour.count or (colour is Colour.CMYK and page.tags.valueof(332, 1) != 1):
        raise InputError(f"{path}: {count} samples per pixel; expected those of {colour.value}")
    return colour


def _extra_samples(page: tifffile.TiffPage, colour: Colour) -> list[int]:
    """The kinds of the samples that follow a pixel's colour: 0 unknown, or one of _ALPHAS."""
    count = page.samplesperpixel - colour.count
    kinds = [int(kind) for kind in page.extrasamples]
    if not kinds and count == 1 and colour is Colour.RGB:
        return [2]  # a fourth sample without a kind is alpha for other programs, too
    return ([0] * count + kinds)[len(kinds) :]


def _palette(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    """The palette [N, 4] uint8 RGBA of a page."""
    if page.colormap is None:
        raise InputError(f"{path}: indexed colours without their palette")
    colours = page.colormap.T
    if colours.max() > 255:  # some programs write 8 bits where 16 are expected
        colours = colours // 256
    return np.column_stack([colours, np.full(len(colours), 255)]).astype(np.uint8)


def _largest(value: object) -> int | None:
    """The tag MaxSampleValue, a number or one for each sample."""
    values = value if isinstance(value, Iterable) else [value]
    numbers = [number for number in values if isinstance(number, int)]
    return max(numbers, default=None)
