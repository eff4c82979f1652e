"""Files of every kind that people have, made anew: images and labels, right ones and wrong ones."""

import copy
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (37, 50, 3), np.uint8)
GREY = IMAGE[..., 0].copy()
THRICE = np.repeat(GREY[..., None], 3, 2)
DEEP = IMAGE.astype(np.uint16) * 257  # 16 bits
IDS = (np.arange(37)[:, None] // 8 * 10 + np.arange(50) // 8).astype(np.uint8)
ORIENTATION = 274
RATIONAL = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}  # 0.5 microns


WITHOUT_IMAGECODECS = (None, "zlib", "lzma")  # compressions that tifffile writes alone


def tiff(array, **options):
    """A function that writes an array as TIFF."""
    options = {"photometric": "rgb" if array.ndim == 3 else "minisblack", **options}

    def write(path):
        if options.get("compression") not in WITHOUT_IMAGECODECS:
            pytest.importorskip("imagecodecs")
        tifffile.imwrite(path, array, **copy.deepcopy(options))

    return write


def pillow(array, kind="PNG", **options):
    """A function that writes an array or a picture through Pillow."""
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    return lambda path: picture.save(path, kind, **options)


def png(rows, bits, colour, width, height=None, interlaced=0, **chunks):
    """A function that writes a PNG from its packed rows [H, bytes], as the standard has it."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height or len(rows), bits, colour, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), *((k.encode(), v) for k, v in chunks.items())]
    body = b"".join(chunk(*part) for part in [*parts, (b"IDAT", data), (b"IEND", b"")])
    return lambda path: Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def deep_png(array):
    """A function that writes [H, W, S] uint16 as PNG: grey, grey and alpha, RGB or RGBA."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    return png(array.astype(">u2").reshape(len(array), -1), 16, colour, array.shape[1])


def over_white(colour, alpha):
    """Colours [H, W, 3] with alpha [H, W] on white, in exact numbers."""
    alpha = alpha[..., None].astype(int)
    return (colour.astype(int) * alpha + 255 * (255 - alpha)) // 255


def tiff_pages(*arrays, **options):
    """A function that writes each array as a page of its own, without metadata."""

    def write(path):
        with tifffile.TiffWriter(path) as writer:
            for array in arrays:
                rgb = "rgb" if array.ndim == 3 else "minisblack"
                writer.write(array, photometric=rgb, metadata=None, contiguous=False, **options)

    return write


def without_tag(code, array, **options):
    """A function that writes a TIFF without one of its tags."""

    def write(path):
        tiff(array, **options)(path)
        with tifffile.TiffFile(path) as file:
            place = file.pages[0].tags[code].offset
        content = bytearray(path.read_bytes())
        content[place : place + 2] = struct.pack("<H", 65000)  # nobody's
        path.write_bytes(content)

    return write


def pyramid(path):
    """A tiled pyramid with its lower levels in sub-IFDs."""
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "tile": (16, 16), "metadata": None}
        writer.write(IMAGE, subifds=1, **options)
        writer.write(IMAGE[::2, ::2], subfiletype=1, **options)


def preview_first(path):
    """A reduced picture stands before the image."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(IMAGE, photometric="rgb", metadata=None)


def long_stack(path):
    """An ImageJ stack of three channels as those over 4 GB are: only the first page has tags."""
    tifffile.imwrite(path, np.moveaxis(IMAGE, 2, 0), imagej=True, metadata={"axes": "CYX"})
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = bytes(4)  # there is no further page
    path.write_bytes(content)


def interlaced_png(array):
    """A function that writes [H, W, 3] uint8 as an interlaced PNG (Adam7)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1)]  # fmt: skip
    rows = [row for y, x, dy, dx in passes for row in array[y::dy, x::dx]]
    return png(rows, 8, 2, array.shape[1], len(array), interlaced=1)


def upside_down_bmp(array):
    """A function that writes [H, W, 3] uint8 as a BMP whose first row is on top."""

    def write(path):
        Image.fromarray(array[::-1].copy()).save(path, "BMP")
        content = bytearray(path.read_bytes())
        content[22:26] = struct.pack("<i", -len(array))
        path.write_bytes(content)

    return write


def orientation_exif(number):
    """EXIF data that hold an orientation, 1 to 8."""
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def like_pillow(write, note=""):
    """An entry of KINDS whose pixels are those that Pillow shows."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a")
        with Image.open(Path(folder) / "a") as picture:
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    return write, pixels, note


STRIP = np.random.default_rng(1).integers(0, 256, (4, 900, 3), np.uint8)
ALPHA = np.repeat(np.arange(50, dtype=np.uint8)[None] * 5, 37, 0)
PLANES = np.moveaxis(IMAGE, 2, 0)
INDEXED = Image.fromarray(IMAGE).quantize(16)
CMYK = np.dstack([IMAGE, GREY // 2])
AS_RGB = np.asarray(Image.fromarray(CMYK, "CMYK").convert("RGB"))
LOOKUP = np.stack([np.arange(256)[::-1], np.arange(256), np.full(256, 9)]).astype(np.uint16)
THROUGH_LOOKUP = np.moveaxis(LOOKUP.astype(np.uint8)[:, GREY], 0, 2)
BITS = {bits: (GREY.astype(int) * (2**bits - 1) // 255).astype("u2") for bits in (10, 12, 14)}
TWO = (GREY > 99).astype(np.uint8)
BLACK_AND_WHITE = np.repeat(TWO[..., None] * 255, 3, 2)
SIXTEEN = GREY // 16
SIXTEEN_GREYS = np.repeat(SIXTEEN[..., None] * 17, 3, 2)
FEW_IDS = IDS // 20 * 5 + IDS % 10 // 2  # of four bits


def packed_4(array):
    """Two values of four bits in each byte."""
    return array[:, ::2] << 4 | array[:, 1::2]


KEYED = np.where((GREY == GREY[0, 0])[..., None], 255, THRICE)
ASSOCIATED = np.dstack([IMAGE.astype(int) * ALPHA[..., None] // 255, ALPHA]).astype(np.uint8)
ON_WHITE = ASSOCIATED[..., :3] + (255 - ALPHA[..., None])
HIGH = DEEP.copy()
HIGH[0, 0] = 65535
HIGH_AS_BYTES = (HIGH // 257).astype(np.uint8)

# name -> (a function that writes the file, its pixels, what a note says or "")
KINDS = {
    # TIFF: how the samples lie
    **{
        f"tiff {array.dtype} {planar} {order} {layout}": (
            (array if planar == "contig" else np.moveaxis(array, 2, 0),
             {"planarconfig": planar, "byteorder": order, **options}), pixels, "")
        for array, pixels in ((IMAGE, IMAGE), (HIGH, HIGH_AS_BYTES))
        for planar in ("contig", "separate")
        for order in "<>"
        for layout, options in (("tiles", {"tile": (16, 32)}), ("strips", {"rowsperstrip": 5}))
    },
    "tiff big": ((IMAGE, {"bigtiff": True}), IMAGE, ""),
    # TIFF: compressions
    **{
        f"tiff {compression}": ((IMAGE, {"compression": compression}), IMAGE, "")
        for compression in ("zlib", "lzma", "lzw", "packbits", "zstd", "png", "jpegxr",
                            34712, 33003, 33004, 33005)
    },
    "tiff webp": ((IMAGE, {"compression": "webp", "compressionargs": {"lossless": True}}),
                  IMAGE, ""),
    "tiff jpegxl": ((IMAGE, {"compression": "jpegxl", "compressionargs": {"lossless": True}}),
                    IMAGE, ""),
    "tiff lerc": ((GREY, {"compression": "lerc"}), THRICE, ""),
    "tiff predictor": ((IMAGE, {"compression": "zlib", "predictor": True}), IMAGE, ""),
    "tiff predictor deep": ((HIGH, {"compression": "zlib", "predictor": True, "tile": (16, 16)}),
                            HIGH_AS_BYTES, ""),
    # TIFF: colours
    "tiff grey": ((GREY, {}), THRICE, ""),
    "tiff white is 0": ((GREY, {"photometric": "miniswhite"}), 255 - THRICE, ""),
    "tiff deep white is 0": ((HIGH[..., 0], {"photometric": "miniswhite"}),
                             np.repeat((255 - HIGH_AS_BYTES)[..., :1], 3, 2), ""),
    "tiff palette of 8 bits": ((GREY, {"photometric": "palette", "colormap": LOOKUP}),
                               THROUGH_LOOKUP, ""),
    "tiff palette": ((GREY, {"photometric": "palette", "colormap": LOOKUP * 257}),
                     THROUGH_LOOKUP, ""),
    "tiff CMYK": ((CMYK, {"photometric": "separated"}), AS_RGB, ""),
    "tiff CMYK planes": ((np.moveaxis(CMYK, 2, 0), {"photometric": "separated",
                          "planarconfig": "separate"}), AS_RGB, ""),
    "tiff two colours": ((TWO > 0, {}), BLACK_AND_WHITE, ""),
    "tiff two colours, white is 0": ((TWO > 0, {"photometric": "miniswhite"}),
                                     255 - BLACK_AND_WHITE, ""),
    "tiff three grey samples": ((IMAGE, {"photometric": "minisblack", "planarconfig": "contig"}),
                                IMAGE, "3 channels are read as red"),
    # TIFF: depths
    **{
        f"tiff {bits} bits in 16": ((deep, {}), THRICE, f"read as {bits} bits")
        for bits, deep in BITS.items()
    },
    "tiff 8 bits in 16": ((GREY.astype(np.uint16), {}), THRICE, "read as 8 bits"),
    "tiff 16 bits": ((HIGH[..., 0], {}), np.repeat(HIGH_AS_BYTES[..., :1], 3, 2), ""),
    "tiff states 12 bits": ((np.minimum(BITS[12], 900),
                             {"extratags": [(281, "H", 1, 4095, True)]}),
                            np.minimum(THRICE, 56), "read as 12 bits"),
    "tiff int16": ((HIGH[..., 0].astype(np.int32).clip(0, 32767).astype(np.int16), {}),
                   np.rint(np.repeat(HIGH[..., :1].clip(0, 32767), 3, 2) * (255 / 32767)),
                   "read as 15 bits"),
    "tiff of dark 16 bits": ((DEEP // 10 * 3, {}), DEEP // 10 * 3 // 257,
                             "the brightest sample is"),
    "tiff uint32": ((HIGH[..., 0].astype(np.uint32), {}),
                    np.repeat(HIGH_AS_BYTES[..., :1], 3, 2), ""),
    **{
        f"tiff {kind} to {white}": ((IMAGE.astype(kind) / (255 // white), {}), IMAGE, "")
        for kind in ("float32", "float64")
        for white in (1, 255)
    },
    "tiff float16": ((IMAGE.astype(np.float16), {}), IMAGE, ""),
    "tiff float planes": ((PLANES.astype(np.float32), {"planarconfig": "separate",
                           "byteorder": ">"}), IMAGE, ""),
    # TIFF: alpha and other samples
    "tiff alpha": ((np.dstack([IMAGE, ALPHA]), {"extrasamples": ["unassalpha"]}),
                   over_white(IMAGE, ALPHA), ""),
    "tiff alpha planes": ((np.moveaxis(np.dstack([IMAGE, ALPHA]), 2, 0), {
                           "planarconfig": "separate", "extrasamples": ["unassalpha"]}),
                          over_white(IMAGE, ALPHA), ""),
    "tiff associated alpha": ((ASSOCIATED, {"extrasamples": ["assocalpha"]}), ON_WHITE, ""),
    "tiff deep alpha": ((np.dstack([HIGH, ALPHA.astype(np.uint16) * 257]),
                         {"extrasamples": ["unassalpha"]}),
                        over_white(HIGH_AS_BYTES, ALPHA), ""),
    "tiff grey alpha": ((np.dstack([GREY, ALPHA]), {"photometric": "minisblack",
                         "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
                        over_white(THRICE, ALPHA), ""),
    "tiff infrared": ((np.dstack([IMAGE, ALPHA]), {"extrasamples": ["unspecified"]}), IMAGE,
                      "1 of 4 samples per pixel are left out"),
    "tiff alpha and infrared": ((np.dstack([IMAGE, ALPHA, GREY]),
                                 {"extrasamples": ["unassalpha", "unspecified"]}),
                                over_white(IMAGE, ALPHA), "1 of 5 samples"),
    "tiff alpha without a kind": (without_tag(338, np.dstack([IMAGE, ALPHA])),
                                  over_white(IMAGE, ALPHA), ""),
    "tiff grey without a kind": (without_tag(262, GREY), THRICE, ""),
    "tiff RGB without a kind": (without_tag(262, IMAGE), IMAGE, ""),
    # TIFF: pages
    "tiff ImageJ composite": ((PLANES, {"imagej": True, "metadata": {"axes": "CYX"}}), IMAGE,
                              "3 channels are read as red"),
    "tiff deep ImageJ composite": ((np.moveaxis(HIGH, 2, 0),
                                    {"imagej": True, "metadata": {"axes": "CYX"}}),
                                   HIGH_AS_BYTES, "3 channels are read as red"),
    "tiff OME channels": ((PLANES, {"ome": True, "photometric": "minisblack",
                           "metadata": {"axes": "CYX"}}), IMAGE, "3 channels are read as red"),
    "tiff OME channels and planes": ((np.stack([PLANES, PLANES // 2], 1), {"ome": True,
                                      "photometric": "minisblack", "metadata": {"axes": "CZYX"}}),
                                     IMAGE, "z-plane 1 of 2 is read"),
    "tiff OME planes and channels": ((np.stack([PLANES, PLANES // 2]), {"ome": True,
                                      "photometric": "minisblack", "metadata": {"axes": "ZCYX"}}),
                                     IMAGE, "z-plane 1 of 2 is read"),
    "tiff channels": ((PLANES, {"photometric": "minisblack", "compression": "zlib",
                       "metadata": {"axes": "CYX"}}), IMAGE, "3 channels are read as red"),
    "tiff stack": ((np.stack([GREY, GREY // 2]), {"imagej": True, "metadata": {"axes": "ZYX"}}),
                   THRICE, "z-plane 1 of 2 is read"),
    "tiff time": ((np.stack([IMAGE] * 3), {"imagej": True, "metadata": {"axes": "TYXS"}}),
                  IMAGE, "time point 1 of 3 is read"),
    "tiff long stack": (long_stack, IMAGE, "3 channels are read as red"),
    "tiff two pages": (tiff_pages(GREY, GREY // 2), THRICE, "page 1 of 2 is read"),
    "tiff two images": (tiff_pages(IMAGE, GREY[:9]), IMAGE, "image 1 of 2 is read"),
    "tiff pyramid": (pyramid, IMAGE, ""),
    "tiff preview first": (preview_first, IMAGE, ""),
    # PNG
    "png grey": (pillow(GREY), THRICE, ""),
    "png RGB": (pillow(IMAGE), IMAGE, ""),
    "png RGBA": (pillow(np.dstack([IMAGE, ALPHA])), over_white(IMAGE, ALPHA), ""),
    "png grey alpha": (pillow(np.dstack([GREY, ALPHA])), over_white(THRICE, ALPHA), ""),
    "png two colours": (pillow(TWO > 0), BLACK_AND_WHITE, ""),
    "png palette": (pillow(INDEXED), np.asarray(INDEXED.convert("RGB")), ""),
    "png clear index": (pillow(INDEXED, transparency=3),
                        np.where((np.asarray(INDEXED) == 3)[..., None], 255,
                                 np.asarray(INDEXED.convert("RGB"))), ""),
    "png 4 bits": (png(packed_4(SIXTEEN), 4, 0, 50), SIXTEEN_GREYS, ""),
    "png clear grey": (png(GREY, 8, 0, 50, tRNS=struct.pack(">H", GREY[0, 0])), KEYED, ""),
    "png clear colour": (png(IMAGE.reshape(37, -1), 8, 2, 50, tRNS=struct.pack(
                         ">3H", *IMAGE[1, 1])),
                         np.where((IMAGE == IMAGE[1, 1]).all(2)[..., None], 255, IMAGE), ""),
    "png 16 bits": (deep_png(HIGH[..., :1]), np.repeat(HIGH_AS_BYTES[..., :1], 3, 2), ""),
    "png 12 bits in 16": (deep_png(BITS[12][..., None]), THRICE, "read as 12 bits"),
    "png RGB of 16 bits": (deep_png(HIGH), HIGH_AS_BYTES, ""),
    "png RGB of 12 bits": (deep_png(np.repeat(BITS[12][..., None], 3, 2)), THRICE,
                           "read as 12 bits"),
    "png RGBA of 16 bits": (deep_png(np.dstack([HIGH, ALPHA.astype(np.uint16) * 257])),
                            over_white(HIGH_AS_BYTES, ALPHA), ""),
    "png grey alpha of 16 bits": (deep_png(np.dstack([HIGH[..., 0], ALPHA.astype("u2") * 257])),
                                  over_white(np.repeat(HIGH_AS_BYTES[..., :1], 3, 2), ALPHA), ""),
    "png of two pictures": (pillow(IMAGE, save_all=True, append_images=[INDEXED]), IMAGE,
                            "picture 1 of 2 is read"),
    # BMP
    "bmp RGB": (pillow(IMAGE, "BMP"), IMAGE, ""),
    "bmp grey": (pillow(GREY, "BMP"), THRICE, ""),
    "bmp two colours": (pillow(TWO > 0, "BMP"), BLACK_AND_WHITE, ""),
    "bmp palette": (pillow(INDEXED, "BMP"), np.asarray(INDEXED.convert("RGB")), ""),
    "bmp RGBA": (pillow(np.dstack([IMAGE, ALPHA]), "BMP"), IMAGE, ""),  # as viewers do
    # JPEG, BMP and PNG through an independent reader
    **{
        f"jpeg {name}": like_pillow(pillow(picture, "JPEG", **options))
        for name, picture, options in (
            ("RGB", IMAGE, {}), ("grey", GREY, {}), ("CMYK", Image.fromarray(CMYK, "CMYK"), {}),
            ("progressive", IMAGE, {"progressive": True}), ("4:4:4", IMAGE, {"subsampling": 0}),
        )
    },
    "png interlaced": (interlaced_png(IMAGE), IMAGE, ""),
    "bmp upside down": (upside_down_bmp(IMAGE), IMAGE, ""),
    # Turned, as viewers show it
    **{
        f"{kind} orientation {number}": like_pillow(
            pillow(IMAGE, kind.upper(), exif=orientation_exif(number)), "turned")
        for kind in ("jpeg", "png") for number in range(2, 9)
    },
    **{
        f"tiff orientation {number}": (
            (IMAGE, {"extratags": [(ORIENTATION, "H", 1, number, True)]}),
            like_pillow(pillow(IMAGE, exif=orientation_exif(number)))[1], "turned")
        for number in range(2, 9)
    },
    # What a scale has to bear
    "tiff float a little below 0": ((IMAGE.astype(np.float32) / 255 - 1e-7, {}), IMAGE, ""),
    "tiff without the third colour": ((IMAGE * np.array([1, 1, 0], np.uint8), {}),
                                      IMAGE * np.array([1, 1, 0], np.uint8), ""),
    "tiff thumbnail first": (tiff_pages(IMAGE[::4, ::4], IMAGE), IMAGE, "image 2 of 2 is read"),
    "tiff pages of three sizes": (tiff_pages(GREY[:20], GREY, GREY[:, :9]), THRICE, "image 2 of 3"),
    "tiff mask beside it": (tiff_pages(IMAGE, TWO > 0), IMAGE, "image 1 of 2"),
    "tiff deep hyperstack": ((np.stack([np.moveaxis(HIGH, 2, 0)] * 2), {"imagej": True,
                              "metadata": {"axes": "ZCYX"}}), HIGH_AS_BYTES, "z-plane 1 of 2"),
    "tiff GeoTIFF": ((IMAGE, {"extratags": [(42113, "s", 0, "nan", True)]}), IMAGE, ""),
    **{f"tiff {rows} x {cols}": ((STRIP[:rows, :cols], {}), STRIP[:rows, :cols], "")
       for rows, cols in ((1, 1), (3, 3), (4, 3), (1, 900))},
    "tiff one column": ((np.swapaxes(STRIP[:1], 0, 1), {}), np.swapaxes(STRIP[:1], 0, 1), ""),
    "png one row": (pillow(STRIP[:1]), STRIP[:1], ""),
}  # fmt: skip


def write_kind(kind, path):
    """Write a file of KINDS; returns the right pixels and what its note says."""
    make, pixels, note = KINDS[kind]
    if isinstance(make, tuple):
        array, options = make
        if options.get("imagej"):
            options = {"photometric": None, **options}
        make = tiff(array, **options)
    make(path)
    return pixels, note


SMOOTH = np.linspace(30, 200, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
AS_THEY_ARE = {"compressionargs": {"outcolorspace": "rgb"}}
JPEGS = {
    "YCbCr": (tiff(SMOOTH, compression="jpeg", tile=(32, 32)), "YCBCR", SMOOTH),
    "RGB": (tiff(SMOOTH, compression="jpeg", tile=(32, 32), **AS_THEY_ARE), "RGB", SMOOTH),
    "planes": (tiff(np.moveaxis(SMOOTH, 2, 0), compression="jpeg", planarconfig="separate"),
               "RGB", SMOOTH),
    "grey": (tiff(SMOOTH[..., 0], compression="jpeg", rowsperstrip=16), "MINISBLACK",
             np.repeat(SMOOTH[..., :1], 3, 2)),
    "RGB tables": (pillow(SMOOTH, "TIFF", compression="jpeg", strip_size=3000), "RGB", SMOOTH),
    "YCbCr tables": (pillow(Image.fromarray(SMOOTH).convert("YCbCr"), "TIFF", compression="jpeg",
                            strip_size=3000), "YCBCR", SMOOTH),
}  # fmt: skip


# name -> (array, options of TIFF, what the line says)
REFUSED = {
    "two channels": (np.dstack([GREY, GREY]), {"photometric": "minisblack",
                     "planarconfig": "contig"}, "2 channels"),
    "four channels": (np.dstack([IMAGE, GREY]), {"photometric": "minisblack",
                      "planarconfig": "contig"}, "4 channels"),
    "five ImageJ channels": (np.stack([GREY] * 5), {"imagej": True,
                             "metadata": {"axes": "CYX"}}, "5 channels"),
    "negative": (GREY.astype(np.int16) - 9, {}, "int16 pixels from -9 .* expected integers"),
    "too large": (GREY.astype(np.uint32) * 999, {}, "expected integers from 0 to 65535"),
    "float too large": (GREY.astype(np.float32) * 9, {}, "expected 0 to 1 or 0 to 255"),
    "float below 0": (GREY.astype(np.float32) - 9, {}, "expected 0 to 1 or 0 to 255"),
    "float a little over 1": (GREY.astype(np.float32) / 200, {}, "expected 0 to 1"),
    "not a number": (np.where(GREY > 250, np.nan, GREY).astype(np.float32), {}, "expected 0 to 1"),
    "complex": (GREY.astype(np.complex64), {}, "complex64 pixels"),
    "CIELAB": (IMAGE, {"photometric": "cielab"}, "CIELAB"),
    "YCbCr": (IMAGE, {"photometric": "ycbcr", "subsampling": (1, 1)}, "YCBCR"),
    "a camera's raw data": (GREY, {"photometric": "cfa"}, "CFA"),
    "a volume": (np.stack([GREY] * 2), {"volumetric": True}, "a volume"),
}  # fmt: skip


def write_refused(kind, path):
    """Write a TIFF of REFUSED; returns what the line says."""
    array, options, message = REFUSED[kind]
    default = "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
    photometric = None if options.get("imagej") else default
    tifffile.imwrite(path, array, **{"photometric": photometric, **options})
    return message


EXPECTED = "expected a PNG, TIFF, BMP or JPEG"
# name -> (content of a file, what the line says)
NO_IMAGES = {
    "empty": (b"", "an empty file"),
    "page": (b"\n<!DOCTYPE html>\n<html>", "a web page"),
    "xml": (b"<?xml version='1.0'?>\n<svg/>", "an XML file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "gif": (b"GIF89a\x01\0\x01\0", "a GIF"),
    "webp": (b"RIFF\x1a\0\0\0WEBPVP8L", "a HEIC, AVIF or WebP file"),
    "heic": (b"\0\0\0\x18ftypheix\0\0\0\0", "a HEIC, AVIF or WebP file"),
    "avif": (b"\0\0\0\x18ftypavif\0\0\0\0", "a HEIC, AVIF or WebP file"),
    "jpeg2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    "dicom": (bytes(128) + b"DICM\2\0", "a DICOM file"),
    "czi": (b"ZISRAWFILE\0\0", "a CZI file of Zeiss"),
    "nd2": (b"\xda\xce\xbe\n" + bytes(40), "an ND2 file of Nikon"),
    "lif": (b"p\0\0\0" + bytes(40), "a LIF file of Leica"),
    "text": (b"no image", EXPECTED),
    "sound": (b"RIFF\x1a\0\0\0WAVEfmt ", EXPECTED),
    "png": (b"\x89PNG\r\n\x1a\n", "not a readable PNG"),
    "tiff": (b"II*\0", "not a readable TIFF"),
    "tiff_of_nothing": (b"II*\0" + bytes(40), "not a readable TIFF .no image in it"),
    "bmp": (b"BM is how this text begins", "not a readable BMP"),
}


def cut_off(make):
    """A function that writes the first half of a file."""

    def write(path):
        make(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


# name -> (a function that makes something at a path, what the line says)
NO_FILES = {
    "pipe": (os.mkfifo, "a pipe, socket or device"),
    "folder": (Path.mkdir, "a folder"),
    "link": (lambda path: path.symlink_to("nowhere"), "a link to a file that is not there"),
    "half a tiff": (cut_off(tiff(IMAGE)), "strips or tiles are missing"),
    "half a tiled tiff": (cut_off(tiff(IMAGE, tile=(16, 16))), "tiles are missing"),
    "half a png": (cut_off(pillow(IMAGE)), "not a readable PNG"),
    "half a jpeg": (cut_off(pillow(IMAGE, "JPEG")), "not a readable JPEG"),
    "half a bmp": (cut_off(pillow(IMAGE, "BMP")), "not a readable BMP"),
}


def palette_picture(ids, colours):
    picture = Image.fromarray(ids)
    picture.putpalette(colours.astype(np.uint8).tobytes())
    return picture


WHITE = np.full((256, 3), 255)
GREYS_THAT_REPEAT = np.repeat(np.arange(256)[:, None] // 2 * 2, 3, 1)
BIG = IDS.astype(np.int64) * 1000
BY_NUMBER = np.arange(256, dtype=np.uint16)

# name -> (a function that writes the label, its ids)
LABELS = {
    "png": (pillow(IDS), IDS),
    "png 4 bits": (png(packed_4(FEW_IDS), 4, 0, 50), FEW_IDS),
    "png 16 bits": (pillow(BIG.astype(np.uint16)), BIG),
    "png RGB": (pillow(np.repeat(IDS[..., None], 3, 2)), IDS),
    "png RGB of 16 bits": (deep_png(np.repeat(BIG[..., None], 3, 2).astype("u2")), BIG),
    "png RGBA": (pillow(np.dstack([IDS, IDS, IDS, np.where(IDS, 255, 0).astype(np.uint8)])), IDS),
    "png white palette": (pillow(palette_picture(IDS, WHITE)), IDS),
    "png grey palette": (pillow(palette_picture(IDS, GREYS_THAT_REPEAT)), IDS),
    "png colours": (pillow(palette_picture(IDS, RNG.integers(0, 256, (256, 3)))), IDS),
    "png clear background": (pillow(palette_picture(IDS, WHITE), transparency=0), IDS),
    "bmp": (pillow(IDS, "BMP"), IDS),
    "bmp palette": (pillow(palette_picture(IDS, WHITE), "BMP"), IDS),
    "tiff palette": ((IDS, {"photometric": "palette",
                      "colormap": np.stack([BY_NUMBER // 2 * 514] * 3)}), IDS),
    "tiff white is 0": ((IDS, {"photometric": "miniswhite"}), IDS),
    "tiff RGB": ((np.repeat(IDS[..., None], 3, 2), {}), IDS),
    "tiff float": ((BIG.astype(np.float32), {}), BIG),
    "tiff planes": ((np.stack([IDS] * 3), {"planarconfig": "separate"}), IDS),
    "tiff jpeg 2000": ((IDS, {"compression": 34712}), IDS),
    **{
        f"tiff {kind} {order}": ((BIG.astype(kind), {"byteorder": order, "compression": "zlib"}),
                                 BIG)
        for kind in ("uint16", "uint32", "int32", "uint64", "int64")
        for order in "<>"
    },
}  # fmt: skip


def write_label(make, path):
    if isinstance(make, tuple):
        array, options = make
        make = tiff(array, **options)
    make(path)


WRONG_LABELS = {
    "colours": (pillow(IMAGE), "a colour image"),
    "deep colours": (deep_png(DEEP), "a colour image"),
    "jpeg": (pillow(IDS, "JPEG"), "JPEG may change values"),
    "jpeg in a tiff": ((IDS, {"compression": "jpeg"}), "JPEG may change values"),
    "lossy jpeg 2000": ((IDS, {"compression": 34712, "compressionargs": {"level": 30}}),
                        "JPEG 2000 may change values"),
    "lossy webp": ((np.repeat(IDS[..., None], 3, 2), {"compression": "webp",
                    "compressionargs": {"level": 60, "lossless": False}}), "WebP"),
    "CMYK": ((CMYK, {"photometric": "separated"}), "a colour image"),
    "pages": (tiff_pages(IDS, IDS), "several images .page 1 of 2."),
    "images": (tiff_pages(IDS, IDS[:5]), "several images .image 1 of 2."),
    "float": ((IDS.astype(np.float32) / 3, {}), "no whole numbers"),
    "rounded": (((BIG * 3000).astype(np.float32), {}), "too large for float32, which rounds"),
    "rounded halves": (((BIG // 9).astype(np.float16), {}), "too large for float16"),
    "not a number": ((np.where(IDS, np.nan, 0).astype(np.float32), {}), "no whole numbers"),
    "large ids": ((BIG * 2**31, {}), "expected at most 2147483647"),
    "ids of 32 bits": ((IDS.astype(np.uint32) + np.uint32(2**31), {}), "expected at most"),
    "negative": ((IDS.astype(np.int16) - 1, {}), "negative ids"),
    "two channels": (pillow(np.dstack([IDS + 1, ALPHA])), "transparent pixels"),
    "complex": ((IDS.astype(np.complex64), {}), "complex64 pixels"),
    **{
        f"binary {name}": (make, "a binary mask .* components share the value")
        for name, make in {
            "png": pillow(TWO * 255),
            "of another value": pillow(TWO * 128),
            "png 1 bit": pillow(TWO > 0),
            "png palette": pillow(palette_picture(TWO, WHITE)),
            "bmp": pillow(TWO > 0, "BMP"),
            "tiff": (TWO, {}),
            "tiff 1 bit": (TWO > 0, {}),
            "tiff 1 bit, white is 0": (TWO > 0, {"photometric": "miniswhite"}),
            "tiff float": (TWO.astype(np.float32), {}),
            "tiff 16 bits": (TWO.astype(np.uint16) * 65535, {}),
        }.items()
    },
}  # fmt: skip
