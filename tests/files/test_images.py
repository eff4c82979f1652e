"""Images and labels of every kind that people have: the right pixels, or one line."""

import copy
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from code_common.errors import InputError
from code_common.files import image_kinds
from code_common.files.images import (
    image_shape,
    is_nearly_constant,
    read_image,
    read_instances,
    read_label,
    read_prob,
)
from code_common.files.resolution import read_mpp
from code_common.files.tiff import TiffPlane

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


def png(rows, bits, colour, width, **chunks):
    """A function that writes a PNG from its packed rows [H, bytes], as the standard has it."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
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
PACKED_4 = SIXTEEN[:, ::2] << 4 | SIXTEEN[:, 1::2]
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
                   np.repeat((HIGH[..., :1].clip(0, 32767) // 257), 3, 2), ""),
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
    "png 4 bits": (png(PACKED_4, 4, 0, 50), SIXTEEN_GREYS, ""),
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


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_read_rightly(tmp_path, kind, capfd):
    path = tmp_path / "a.bin"  # the suffix says nothing
    pixels, note = write_kind(kind, path)
    notes = []
    image = read_image(path, notes)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, pixels)
    assert image_shape(path) == (37, 50)
    assert len(notes) == (note != "") or note in " ".join(notes)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in notes)
    if path.read_bytes()[:2] in (b"II", b"MM"):  # large images are read by the same code
        plane = TiffPlane(path)
        assert plane.notes() == notes
        assert np.array_equal(plane.read(5, 7, 20, 30), pixels[5:25, 7:37])
        assert np.array_equal(plane.read(30, 40, 99, 99), pixels[30:, 40:])
    assert capfd.readouterr() == ("", "")


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


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_in_a_tiff(tmp_path, kind):
    write, photometric, pixels = JPEGS[kind]
    write(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].photometric.name == photometric
        assert (file.pages[0].jpegtables is not None) == ("tables" in kind)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - pixels).max() <= 6


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    for mode in ("RGB", "L", "CMYK"):
        picture = Image.fromarray(IMAGE).convert(mode)
        picture.save(tmp_path / "a.jpg")
        with Image.open(tmp_path / "a.jpg") as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(read_image(tmp_path / "a.jpg"), expected)


def test_a_photo_with_a_second_picture(tmp_path):
    options = {"save_all": True, "append_images": [Image.fromarray(IMAGE[:9])]}
    Image.fromarray(IMAGE).save(tmp_path / "two.jpg", "MPO", **options)
    Image.fromarray(IMAGE).save(tmp_path / "one.jpg")
    notes = []
    image = read_image(tmp_path / "two.jpg", notes)
    assert np.array_equal(image, read_image(tmp_path / "one.jpg"))
    assert notes == [f"{tmp_path / 'two.jpg'}: picture 1 of 2 is read"]


def test_jpeg_2000_of_aperio_holds_ycbcr(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    ycbcr = np.asarray(Image.fromarray(IMAGE).convert("YCbCr"))
    plain = imagecodecs.jpeg2k_encode(ycbcr, level=0, mct=False)
    tifffile.imwrite(tmp_path / "a.tif", iter([plain]), shape=IMAGE.shape, dtype=np.uint8,
                     photometric="rgb", compression=33003, rowsperstrip=37)  # fmt: skip
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - IMAGE).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["tiff", "tiled", "jpeg", "png"])
def test_one_rule_turns_every_image(tmp_path, kind, orientation):
    """The rule is that of viewers, and Pillow has it."""
    path, exif = tmp_path / "a", Image.Exif()
    exif[ORIENTATION] = orientation
    if kind in ("jpeg", "png"):
        Image.fromarray(IMAGE).save(path, kind, exif=exif)
    else:
        layout = {"tile": (16, 16), "compression": "zlib"} if kind == "tiled" else {}
        extra = [(ORIENTATION, "H", 1, orientation, True)]
        tiff(IMAGE, extratags=extra, **layout)(path)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    notes = []
    assert np.array_equal(read_image(path, notes), shown)
    assert image_shape(path) == shown.shape[:2]
    assert ["turned" in note for note in notes] == [True] * (orientation != 1)
    if kind in ("tiff", "tiled"):
        assert np.array_equal(TiffPlane(path).read(3, 5, 11, 13), shown[3:14, 5:18])


def test_a_page_that_is_missing_is_not_passed_over(tmp_path):
    """The first page alone would be taken for a grey image."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES, imagej=True, metadata={"axes": "CYX"})
    with tifffile.TiffFile(path) as file:
        last = file.pages[2].offset
    path.write_bytes(path.read_bytes()[: last + 4])
    with pytest.raises(InputError, match="a.tif: a page lies outside of the file"):
        read_image(path)


def test_pages_that_point_in_a_circle_are_no_endless_loop(tmp_path):
    path = tmp_path / "a.tif"
    tiff_pages(GREY, GREY // 2)(path)
    with tifffile.TiffFile(path) as file:
        first, second = file.pages[0].offset, file.pages[1]
        place = second.offset + 2 + 12 * len(second.tags)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.tif: .* in a circle"):
        read_image(path)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_says_nothing(tmp_path, value):
    tiff(IMAGE, extratags=[(ORIENTATION, "H", 1, value, True)])(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif"), IMAGE)


def test_broken_exif_data_say_nothing(tmp_path):
    png(GREY, 8, 0, 50, eXIf=b"II*\0\xff\xff\xff\xff")(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), THRICE)


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


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_image_of_a_microscope_is_refused(tmp_path, kind):
    array, options, message = REFUSED[kind]
    default = "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
    photometric = None if options.get("imagej") else default
    tifffile.imwrite(tmp_path / "a.tif", array, **{"photometric": photometric, **options})
    with pytest.raises(InputError, match=f"a.tif: .*{message}") as caught:
        read_image(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


WITHOUT = """
import sys
sys.modules["imagecodecs"] = None
from pathlib import Path
import numpy as np
from code_common.errors import InputError
from code_common.files.images import read_image
for path in sorted(Path(sys.argv[1]).glob("*.tif")):
    try:
        np.save(path.with_suffix(".npy"), read_image(path))
    except InputError as error:
        print(error)
"""


def test_what_is_read_without_imagecodecs(tmp_path):
    """LZW, Zstandard and JPEG as with it. What needs it names it."""
    pytest.importorskip("imagecodecs")
    files = {
        "lzw": tiff(IMAGE, compression="lzw", rowsperstrip=5),
        "lzw_planes": tiff(np.moveaxis(HIGH, 2, 0), compression="lzw", rowsperstrip=5,
                           planarconfig="separate", predictor=True),
        "lzw_tiles": tiff(HIGH, compression="lzw", tile=(16, 16), predictor=True, byteorder=">"),
        "zstd": tiff(IMAGE, compression="zstd", rowsperstrip=5),
        "packbits": tiff(IMAGE, compression="packbits"),
        "zlib": tiff(HIGH, compression="zlib", predictor=True),
        "two": tiff(TWO > 0),
        **{f"jpeg_{kind}": write for kind, (write, _, _) in JPEGS.items()},
    }  # fmt: skip
    for name, write in files.items():
        write(tmp_path / f"{name}.tif")
    tiff(IMAGE, compression=34712)(tmp_path / "needs.tif")
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert "needs.tif: " in done.stdout and "JPEG2000" in done.stdout
    assert "pip install imagecodecs" in done.stdout
    for name in files:
        expected = read_image(tmp_path / f"{name}.tif")
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), expected), name


def in_one_line(read, path, message):
    """A file is refused in one line that names it."""
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_image, image_shape, read_mpp])
def test_what_is_no_image_is_named_at_once(tmp_path, read):
    contents = {
        "empty": (b"", "an empty file"),
        "page": (b"\n<!DOCTYPE html>\n<html>", "a web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        "gif": (b"GIF89a\x01\0\x01\0", "a GIF"),
        "text": (b"no image", "expected a PNG, TIFF, BMP or JPEG"),
        "png": (b"\x89PNG\r\n\x1a\n", "not a readable PNG"),
        "tiff": (b"II*\0", "not a readable TIFF"),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        in_one_line(read, path, message)
    in_one_line(read, tmp_path / "absent.png", "no such file")
    in_one_line(read, tmp_path, "a folder")
    link = tmp_path / "link.png"
    link.symlink_to("nowhere")
    in_one_line(read, link, "a link to a file that is not there")
    os.mkfifo(tmp_path / "pipe.png")  # nobody writes into it: to open it would wait for ever
    in_one_line(read, tmp_path / "pipe.png", "a pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        in_one_line(read, tmp_path / "s.png", "socket")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_file_that_was_cut_off_is_refused_or_whole(tmp_path, kind):
    whole = io.BytesIO()
    options = {"TIFF": {"compression": "jpeg"}}.get(kind, {})
    Image.fromarray(IMAGE).save(whole, kind, **options)
    (tmp_path / "whole").write_bytes(whole.getvalue())
    expected, lengths = read_image(tmp_path / "whole"), len(whole.getvalue())
    for length in RNG.integers(1, lengths, 60).tolist() + [lengths - 1, lengths - 2]:
        (tmp_path / "cut").write_bytes(whole.getvalue()[:length])
        try:
            image = read_image(tmp_path / "cut")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(image, expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tag", [273, 279])
def test_a_strip_that_was_never_written_is_refused(tmp_path, tag, compression):
    path = tmp_path / "a.tif"
    tiff(IMAGE, rowsperstrip=10, compression=compression)(path)
    with tifffile.TiffFile(path, mode="r+") as file:
        values = list(file.pages[0].tags[tag].value)
        file.pages[0].tags[tag].overwrite([*values[:-1], 0])
    in_one_line(read_image, path, "strips or tiles are missing")


def test_more_pixels_than_pillow_likes_are_read(tmp_path, monkeypatch):
    for kind in ("PNG", "JPEG", "TIFF"):
        Image.fromarray(GREY).save(tmp_path / "a", kind)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert read_image(tmp_path / "a").shape == IMAGE.shape
        assert image_shape(tmp_path / "a") == (37, 50) and Image.MAX_IMAGE_PIXELS == 10
        with monkeypatch.context() as little:
            little.setattr(image_kinds, "memory_bytes", lambda: 10_000)
            in_one_line(read_image, tmp_path / "a", "50 x 37 pixels take .* GB.*tiles")


def test_an_image_that_shows_nothing():
    assert is_nearly_constant(np.full((9, 9, 3), 200, np.uint8))
    assert is_nearly_constant(IMAGE // 100)
    assert not is_nearly_constant(IMAGE)
    two_colours = np.full((10, 10, 3), (240, 240, 240), np.uint8)
    two_colours[:2, :, 0] = 90
    assert not is_nearly_constant(two_colours)


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
    "png 4 bits": (png(PACKED_4, 4, 0, 50), SIXTEEN),
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


@pytest.mark.parametrize("kind", LABELS)
def test_a_label_is_the_numbers_that_are_stored(tmp_path, kind):
    make, ids = LABELS[kind]
    write_label(make, tmp_path / "a")
    label = read_instances(tmp_path / "a", (37, 50))
    assert label.dtype == np.int32 and np.array_equal(label, ids)


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


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_what_holds_no_ids_is_refused(tmp_path, kind):
    make, message = WRONG_LABELS[kind]
    write_label(make, tmp_path / "a")
    with pytest.raises(InputError, match=f"a: .*{message}") as caught:
        read_instances(tmp_path / "a", (37, 50))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_a_turned_label_is_taken_only_with_an_image_that_is_turned_likewise(tmp_path, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    label, straight, image = (tmp_path / name for name in ("label", "straight", "image"))
    if kind == "png":
        Image.fromarray(IDS).save(label, "PNG", exif=exif)
    else:
        tiff(IDS, extratags=[(ORIENTATION, "H", 1, 6, True)])(label)
    Image.fromarray(IMAGE).save(straight, "PNG")
    Image.fromarray(IMAGE).save(image, "JPEG", exif=exif)
    for other in (None, straight):
        with pytest.raises(InputError, match=r"label: its orientation tag \(6\)"):
            read_label(label, (37, 50), other)
    assert np.array_equal(read_label(label, (50, 37), image), np.rot90(IDS, -1))
    with pytest.raises(InputError, match="50 x 37 pixels.*rotated"):
        Image.fromarray(IDS).save(tmp_path / "flat", "PNG")
        read_label(tmp_path / "flat", image_shape(image), image)


def test_a_probability_map(tmp_path):
    deep_png(HIGH[..., :1])(tmp_path / "p.png")
    assert np.array_equal(read_prob(tmp_path / "p.png", (37, 50)), HIGH[..., 0] / 65535)


def imagej(unit, per_unit):
    return {"imagej": True, "resolution": (per_unit, per_unit), "metadata": {"unit": unit}}


def ome(size, unit="µm"):
    return {"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": size,
                                      "PhysicalSizeXUnit": unit}}  # fmt: skip


STATED = {
    "tags in cm": (tiff(IMAGE, **RATIONAL), 0.5),
    "tags in inch": (tiff(IMAGE, resolution=(101_600, 101_600), resolutionunit="INCH"), 0.25),
    "tags without a unit": (tiff(IMAGE, resolution=(2, 2), resolutionunit="NONE"), None),
    "72 dpi": (tiff(IMAGE, resolution=(72, 72), resolutionunit="INCH"), None),
    "300 dpi": (tiff(IMAGE, resolution=(300, 300), resolutionunit="INCH"), None),
    "resolution 0": (tiff(IMAGE, resolution=(0, 0), resolutionunit="INCH"), None),
    "no resolution": (tiff_pages(IMAGE), None),
    "OME": (tiff(IMAGE, **ome(0.4)), 0.4),
    "OME nm": (tiff(IMAGE, **ome(400, "nm")), 0.4),
    "OME mm": (tiff(IMAGE, **ome(0.0004, "mm")), 0.4),
    "OME pixel": (tiff(IMAGE, **ome(1, "pixel")), None),
    "OME without": (tiff(IMAGE, ome=True), None),
    "ImageJ micron": (tiff(IMAGE, photometric=None, **imagej("micron", 2)), 0.5),
    "ImageJ um": (tiff(IMAGE, photometric=None, **imagej("um", 2)), 0.5),
    "ImageJ escaped": (tiff(IMAGE, photometric=None, **imagej("\\u00B5m", 2)), 0.5),
    "ImageJ nm": (tiff(IMAGE, photometric=None, **imagej("nm", 0.002)), 0.5),
    "ImageJ pixel": (tiff(IMAGE, photometric=None, **imagej("pixel", 2)), None),
    "ImageJ without": (tiff(IMAGE, photometric=None, imagej=True), None),
    "Aperio": (tiff(IMAGE, description="Aperio Image Library v1\n|AppMag = 20|MPP = 0.4990"),
               0.499),
    "png": (pillow(IMAGE, dpi=(50_800, 50_800)), 0.5),
    "png 96 dpi": (pillow(IMAGE, dpi=(96, 96)), None),
    "png without": (pillow(IMAGE), None),
    "jpeg": (pillow(IMAGE, "JPEG", dpi=(50_800, 50_800)), 0.5),
    "jpeg without": (pillow(IMAGE, "JPEG"), None),
    "bmp": (pillow(IMAGE, "BMP", dpi=(50_800, 50_800)), 0.5),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATED)
def test_the_resolution_that_a_file_states(tmp_path, kind):
    write, mpp = STATED[kind]
    write(tmp_path / "a")
    assert read_mpp(tmp_path / "a") == (None if mpp is None else pytest.approx(mpp, rel=1e-3))
