"""Images and labels of every kind that people have: the right pixels, or one line."""

import io
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from kinds import (
    GREY,
    HIGH,
    IDS,
    IMAGE,
    JPEGS,
    KINDS,
    LABELS,
    NO_IMAGES,
    ORIENTATION,
    PLANES,
    RATIONAL,
    REFUSED,
    RNG,
    THRICE,
    TWO,
    WRONG_LABELS,
    deep_png,
    pillow,
    png,
    tiff,
    tiff_pages,
    write_kind,
    write_label,
    write_refused,
)
from PIL import Image, ImageOps

from code_common.errors import InputError
from code_common.files import image_kinds
from code_common.files.images import (
    NOTHING,
    image_shape,
    read_image,
    read_instances,
    read_label,
    read_prob,
    why_no_tissue,
)
from code_common.files.resolution import read_mpp
from code_common.files.tiff import TiffPlane


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_read_rightly(tmp_path, kind, capfd):
    path = tmp_path / "a.bin"  # the suffix says nothing
    pixels, note = write_kind(kind, path)
    notes = []
    image = read_image(path, notes)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, pixels)
    assert image_shape(path) == pixels.shape[:2]
    assert note in " ".join(notes) if note else not notes
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in notes)
    if path.read_bytes()[:2] in (b"II", b"MM"):  # large images are read by the same code
        plane = TiffPlane(path)
        assert plane.notes() == notes
        row, col = (n * 3 // 4 for n in plane.shape)
        inner = pixels[row // 4 : row // 4 + 9, col // 4 : col // 4 + 7]
        assert np.array_equal(plane.read(row // 4, col // 4, *inner.shape[:2]), inner)
        assert np.array_equal(plane.read(row, col, 999, 999), pixels[row:, col:])
    assert capfd.readouterr() == ("", "")


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


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_image_of_a_microscope_is_refused(tmp_path, kind):
    message = write_refused(kind, tmp_path / "a.tif")
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
    for name, (content, message) in NO_IMAGES.items():
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
    assert why_no_tissue(np.full((9, 9, 3), 200, np.uint8)) == NOTHING
    assert why_no_tissue(IMAGE // 100) == NOTHING
    assert why_no_tissue(IMAGE) == ""
    two_colours = np.full((10, 10, 3), (240, 240, 240), np.uint8)
    two_colours[:2, :, 0] = 90
    assert why_no_tissue(two_colours) == ""


@pytest.mark.parametrize("kind", ["12 bits", "float"])
def test_an_image_that_one_mark_makes_dark(tmp_path, kind):
    image = np.resize(IMAGE, (200, 200, 3)).astype(np.uint16) * 16
    stored = image if kind == "12 bits" else (image / 65535).astype(np.float32)
    tifffile.imwrite(tmp_path / "plain.tif", stored, photometric="rgb")
    stored[5, 5] = 65535 if kind == "12 bits" else 1
    tifffile.imwrite(tmp_path / "mark.tif", stored, photometric="rgb")
    assert "is one mark brighter" in why_no_tissue(read_image(tmp_path / "mark.tif"))
    if kind == "12 bits":
        assert why_no_tissue(read_image(tmp_path / "plain.tif")) == ""


@pytest.mark.parametrize("kind", LABELS)
def test_a_label_is_the_numbers_that_are_stored(tmp_path, kind):
    make, ids = LABELS[kind]
    write_label(make, tmp_path / "a")
    label = read_instances(tmp_path / "a", (37, 50))
    assert label.dtype == np.int32 and np.array_equal(label, ids)


def test_ids_too_large_for_a_table_are_numbered_anew_in_their_order(tmp_path):
    """A table by id would take gigabytes. Gaps between smaller ids stay."""
    ids = np.where(IDS, IDS.astype(np.uint32) + 2_000_000_000, 0)
    ids[0, :2] = 7  # the smallest
    tiff(ids)(tmp_path / "a")
    expected = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    label = read_instances(tmp_path / "a", ids.shape)
    assert label.dtype == np.int32 and np.array_equal(label, expected)
    tiff(np.where(ids, ids, 9))(tmp_path / "full")  # no background
    assert read_instances(tmp_path / "full", ids.shape).min() == 1
    tiff(ids % 500_000)(tmp_path / "gaps")
    assert np.array_equal(read_instances(tmp_path / "gaps", ids.shape), ids % 500_000)


def crowded(side):
    """Nuclei of `side` x `side` pixels that touch."""
    row, col = np.indices((60, 60)) // side
    return np.pad(row * 60 + col + 1, 40)


MAPS = {
    "tiny nuclei that touch": crowded(3),
    "nuclei of one pixel": crowded(1) * (np.indices((140, 140)) % 2 == 0).all(0),
    "an id used twice": np.where(crowded(6) > 300, crowded(6) % 300 + 1, crowded(6)),
    "with specks": crowded(10) * (np.random.default_rng(0).random((140, 140)) < 0.6),
    "one nucleus": np.pad(np.full((5, 5), 3), 9),
    "none": np.zeros((9, 9), int),
}


@pytest.mark.parametrize("kind", MAPS)
def test_an_unusual_map_is_one(tmp_path, kind):
    ids = MAPS[kind].astype(np.int32)
    tiff(ids)(tmp_path / "a")
    assert np.array_equal(read_instances(tmp_path / "a", ids.shape), ids)


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


def preview_of_another_resolution(path):
    """A reduced picture stands before the image, each with its own resolution."""
    with tifffile.TiffWriter(path) as writer:
        for array, per_cm, kind in ((IMAGE[::4, ::4], 5_000, 1), (IMAGE, 20_000, 0)):
            writer.write(array, photometric="rgb", subfiletype=kind, metadata=None,
                         resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")  # fmt: skip


STATED = {
    "preview first": (preview_of_another_resolution, 0.5),
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
    x, y = read_mpp(tmp_path / "a")
    assert x == (None if mpp is None else pytest.approx(mpp, rel=1e-3))
    assert y in (None, x)  # some state x alone
