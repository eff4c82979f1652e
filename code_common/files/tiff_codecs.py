"""Decoders of the strips and tiles of a TIFF.

tifffile calls imagecodecs. For those who have it not, tifffile itself decodes deflate, LZMA and
PackBits, and Pillow decodes LZW, Zstandard and JPEG here. The rest needs imagecodecs.
"""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from code_common.files.image_kinds import Undecoded

# (bytes of a strip or tile, its index) -> its samples [h, w, S]
Decode = Callable[[bytes, int], np.ndarray]

JPEGS = (6, 7, 34892, 33007)  # compressions whose decoder turns YCbCr into RGB
_LZW, _JPEG, _ZSTD = 5, 7, 50000
_PLAIN = (1, 8, 32946, 32773, 34925)  # none, deflate (twice), PackBits, LZMA
_JPEG_2000 = (33003, 33004, 33005, 34712)
_APERIO_YCBCR = 33003
_WEBP = (34927, 50001)
# Compressions that may change values, whatever a strip or tile says of itself.
_LOSSY = {**dict.fromkeys(JPEGS, "JPEG"), 34887: "LERC", 22610: "JPEG XR", 34934: "JPEG XR",
          50002: "JPEG XL", 52546: "JPEG XL"}  # fmt: skip


def has_imagecodecs() -> bool:
    """Whether imagecodecs is installed."""
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return False
    return True


def segment_decoder(path: Path, page: tifffile.TiffPage) -> Decode:
    """The decoder of a page's strips or tiles. Its file must be open, and may be closed then.

    Raises Undecoded if imagecodecs is needed and is not installed.
    """
    if has_imagecodecs():
        return _tifffile_decoder(page)
    if page.compression == _JPEG and page.photometric in (0, 1, 2, 6):
        return _jpeg_decoder(page)
    by_pillow = page.compression in (_LZW, _ZSTD) and page.fillorder == 1
    depths_are_plain = page.predictor in (1, 2) and page.bitspersample in (1, 8, 16, 32, 64)
    if depths_are_plain and by_pillow:
        return _bytes_decoder(page)
    if depths_are_plain and page.compression in _PLAIN:
        return _tifffile_decoder(page)
    name = getattr(page.compression, "name", page.compression)
    raise Undecoded(
        f"{path}: a TIFF with {page.bitspersample} bits per sample and the compression {name}; "
        "to read it: pip install imagecodecs"
    )


def lossy_name(page: tifffile.TiffPage, start: bytes) -> str:
    """The name of a page's compression, if it may change values; else an empty string.

    start: first bytes of the first strip or tile.
    """
    if page.compression in _JPEG_2000:
        style = _jpeg_2000_style(start)
        return "" if style and style[-1] == 1 else "JPEG 2000"  # 1: the reversible wavelet
    if page.compression in _WEBP:
        return "" if start[12:16] == b"VP8L" else "WebP"
    return _LOSSY.get(page.compression, "")


def is_aperio_ycbcr(page: tifffile.TiffPage, start: bytes) -> bool:
    """Whether decoded samples are still YCbCr, as Aperio stores them in JPEG 2000.

    start: as for `lossy_name`. A decoder mixes the colours where the file itself asks for it.
    """
    style = _jpeg_2000_style(start)
    return page.compression == _APERIO_YCBCR and bool(style) and style[4] == 0


def _jpeg_2000_style(start: bytes) -> bytes:
    """The coding style of a JPEG 2000 codestream: its segment COD without marker and length."""
    place = start.find(b"\xff\x52\x00", max(start.find(b"\xff\x4f\xff\x51"), 0))
    if place < 0:
        return b""
    return start[place + 4 : place + 14]


def _tifffile_decoder(page: tifffile.TiffPage) -> Decode:
    decode, options = page.decode, {}
    if page.compression in JPEGS:
        options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    def decode_segment(data: bytes, index: int) -> np.ndarray:
        return decode(data, index, **options)[0][0]

    return decode_segment


def _bytes_decoder(page: tifffile.TiffPage) -> Decode:
    """For LZW and Zstandard. tifffile does the rest as if the page were not compressed."""
    compression = int(page.compression)
    page.compression = 1
    decode = page.decode
    width = page.tilewidth if page.is_tiled else page.imagewidth
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    row_bytes = -(-width * samples * page.bitspersample // 8)

    def decode_segment(data: bytes, index: int) -> np.ndarray:
        rows = page.tilelength
        if not page.is_tiled:
            first = index * page.rowsperstrip % _rows_of_strips(page)
            rows = min(page.rowsperstrip, page.imagelength - first)
        return decode(_unpacked(data, compression, rows, row_bytes), index)[0][0]

    return decode_segment


def _rows_of_strips(page: tifffile.TiffPage) -> int:
    """Rows of all strips of a plane, the last one taken as a whole."""
    return -(-page.imagelength // page.rowsperstrip) * page.rowsperstrip


def _unpacked(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Bytes compressed by LZW or Zstandard, as rows * row_bytes bytes.

    They become the only strip of a grey TIFF, which Pillow decodes.
    """
    tags = [(256, row_bytes), (257, rows), (258, 8), (259, compression), (262, 1), (273, 0),
            (277, 1), (278, rows), (279, len(data))]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [struct.pack("<HHII", t, 4, 1, start if t == 273 else v) for t, v in tags]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4)
    with Image.open(io.BytesIO(head + data), formats=("TIFF",)) as image:
        return image.tobytes()


def _jpeg_decoder(page: tifffile.TiffPage) -> Decode:
    tables = (page.jpegtables or b"")[2:-2]  # a JPEG without an image: what the strips share
    # Whether the samples are RGB or YCbCr stands in the TIFF's tags, not in the strip.
    transform = b"\0" if page.photometric == 2 else b"\1"
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + transform

    def decode_segment(data: bytes, index: int) -> np.ndarray:
        start = data[:2] if data[6:10] == b"JFIF" else data[:2] + adobe
        with Image.open(io.BytesIO(start + tables + data[2:]), formats=("JPEG",)) as image:
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"JPEG of the kind {image.mode}")
            return np.atleast_3d(np.asarray(image))

    return decode_segment
