"""PNG, JPEG and BMP files, decoded by Pillow."""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from code_common.errors import InputError
from code_common.files.image_kinds import check_memory, readable, silent_libraries
from code_common.files.pixels import Colour, Decoded, valid_orientation

_ORIENTATION = 0x0112  # the EXIF tag
# What Pillow and the arrays that are made of its pixels take.
_BYTES_PER_PIXEL = 12
_MODES = {"1": Colour.GREY, "L": Colour.GREY, "I;16": Colour.GREY, "I": Colour.GREY,
          "LA": Colour.GREY, "P": Colour.PALETTE, "RGB": Colour.RGB, "RGBA": Colour.RGB,
          "CMYK": Colour.CMYK}  # fmt: skip

_pixel_limit = threading.Lock()  # held while Pillow's limit is set aside


def read_header(path: Path, kind: str) -> tuple[tuple[int, int], int]:
    """Rows and columns as they are stored, and the orientation. kind: as `image_kind` says."""
    with readable(path, kind), _opened(path, kind) as image:
        return (image.height, image.width), _orientation(image, _chunks(path, kind))


def decode(path: Path, kind: str) -> Decoded:
    """Decode a file. Raises InputError if it is broken, or too large for the memory."""
    with readable(path, kind), _opened(path, kind) as image:
        check_memory(path, (image.height, image.width), _BYTES_PER_PIXEL)
        chunks = _chunks(path, kind)
        frames = getattr(image, "n_frames", 1)
        others = f"picture 1 of {frames}" if frames > 1 else ""
        image.load()
        if image.mode not in _MODES:
            raise InputError(f"{path}: pixels of the kind {image.mode}; expected grey or RGB")
        colour = _MODES[image.mode]
        samples, bits = np.asarray(image), 8
        if kind == "PNG":
            samples, bits = _png_samples(path, samples, chunks)
        elif image.mode == "1":
            bits = 1
        samples = samples[..., None] if samples.ndim == 2 else samples
        return Decoded(
            path,
            samples,
            colour,
            bits,
            alpha=colour.count if samples.shape[2] > colour.count else None,
            palette=_palette(image) if colour is Colour.PALETTE else None,
            clear=None if colour is Colour.PALETTE else _clear(chunks, colour.count),
            orientation=_orientation(image, chunks),
            lossy="JPEG" if kind == "JPEG" else "",
            others=others,
            notes=(f"{others} is read",) if others else (),
        )


def stated_dpi(path: Path, kind: str) -> tuple[float, float]:
    """Pixels per inch along x and y by PNG's pHYs, JPEG's density, BMP's header; 0: unknown."""
    with readable(path, kind), _opened(path, kind) as image:
        x, y = image.info.get("dpi") or (0, 0)
        return float(x), float(y)


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Image.Image]:
    """A file that Pillow has opened, of any number of pixels: `check_memory` sets the limit."""
    with _pixel_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=(kind,))
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _chunks(path: Path, kind: str) -> dict[bytes, bytes]:
    """The chunks of a PNG that Pillow does not tell all of: name -> content. Else empty."""
    chunks: dict[bytes, bytes] = {}
    if kind != "PNG":
        return chunks
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name in (b"IHDR", b"tRNS", b"eXIf"):
                chunks[name] = file.read(length)
                length = 0
            file.seek(length + 4, 1)  # 4: the checksum
    return chunks


def _orientation(image: Image.Image, chunks: dict[bytes, bytes]) -> int:
    """The orientation in the EXIF data of a JPEG or a PNG. XMP's is ignored, as browsers do."""
    data = chunks.get(b"eXIf") or image.info.get("exif")
    exif = Image.Exif()
    with suppress(Exception):  # broken EXIF data say nothing
        if data and image.format in ("JPEG", "MPO", "PNG"):
            exif.load(data)
    return valid_orientation(exif.get(_ORIENTATION))


def _palette(image: Image.Image) -> np.ndarray:
    """The palette [N, 4] uint8 RGBA of an indexed image."""
    image.apply_transparency()
    return np.array(image.getpalette("RGBA"), np.uint8).reshape(-1, 4)


def _clear(chunks: dict[bytes, bytes], count: int) -> tuple[int, ...] | None:
    """The colour of `count` samples that a PNG declares transparent, or None."""
    data = chunks.get(b"tRNS", b"")
    return struct.unpack(f">{count}H", data) if len(data) == 2 * count else None


def _png_samples(
    path: Path, pixels: np.ndarray, chunks: dict[bytes, bytes]
) -> tuple[np.ndarray, int]:
    """The samples that are stored in a PNG, and their bits. pixels: as Pillow gives them."""
    bits, kind = chunks[b"IHDR"][8], chunks[b"IHDR"][9]
    grey = kind == 0
    if grey and bits in (2, 4):  # Pillow stretches them to 0..255
        pixels = pixels // (255 // (2**bits - 1))
    elif bits == 16 and not grey:
        pixels = _deep_png(path, pixels)
    elif bits == 16 and pixels.dtype != np.uint16:
        pixels = pixels.astype(np.uint16)
    return pixels, 8 if kind == 3 else bits


def _deep_png(path: Path, high: np.ndarray) -> np.ndarray:
    """The samples [H, W, S] uint16 of a PNG of 16 bits with colours or alpha.

    high [H, W, S] uint8: the higher byte of each, which is all that Pillow gives. OpenCV gives
    both bytes, and is believed where the higher ones agree.
    """
    with silent_libraries():
        deep = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is not None and deep.dtype == np.uint16 and deep.ndim == 3:
        grey_alpha, rgb, rgba = [0, -1], [2, 1, 0], [2, 1, 0, 3]
        deep = deep[..., {2: grey_alpha, 3: rgb, 4: rgba}[high.shape[2]]]
        if np.array_equal(deep >> 8, high):
            return np.ascontiguousarray(deep)
    raise InputError(f"{path}: a PNG of 16 bits that two decoders read differently; save as TIFF")
