"""Images of any kind are read in parts, at the resolution wanted."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from stand_ins import MPP, PALE, disks, write_slide

from code_common.errors import InputError
from code_common.files.images import read_image
from code_common.files.writing import write_png
from code_common.inference import slides
from code_common.inference.ome_tiff import write_label_map
from code_common.inference.slides import reduced, tissue
from code_common.inference.streaming import DiskMap

COMPRESSED = {"png": {}, "tif": {"compression": "tiff_lzw"}}


@pytest.fixture
def slide(tmp_path):
    """Path and image of a slide."""
    pytest.importorskip("tiffslide")
    path = tmp_path / "slide.svs"
    return path, write_slide(path)[0]


def test_a_slide_is_read_as_it_is(slide, open_slide):
    path, image = slide
    whole = open_slide(path, None, None)
    assert whole.shape == image.shape[:2] == (1200, 1500)
    assert whole.mpp == pytest.approx(MPP) and whole.scale == 1
    assert np.array_equal(whole.read(100, 200, 300, 400), image[100:400, 200:600])
    assert whole.thumbnail().shape == (38, 47, 3)


def test_a_slide_is_read_at_half_of_its_resolution(slide, open_slide):
    path, image = slide
    half = open_slide(path, mpp=2 * MPP, file_mpp=None)
    assert half.shape == (600, 750) and half.scale == pytest.approx(2)
    small = cv2.resize(image, (750, 600), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(half.read(0, 0, 600, 750) - small).mean() < 1


def test_parts_of_a_slide_fit_together_at_a_resolution_that_no_level_has(slide, open_slide):
    third = open_slide(slide[0], mpp=3 * MPP, file_mpp=None)
    parts = [third.read(0, col, 400, 100).astype(int) for col in (0, 100)]
    assert np.abs(np.hstack(parts) - third.read(0, 0, 400, 200)).mean() < 3


def test_a_resolution_that_a_file_does_not_say_is_asked_for(tmp_path, monkeypatch, open_slide):
    monkeypatch.setattr("code_common.inference.slides.LARGE", 1000)
    pytest.importorskip("tiffslide")
    image = disks((300, 300), 3)[0]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(256, 256))
    with pytest.raises(InputError, match="a.tif: does not say .* give --file-mpp"):
        open_slide(tmp_path / "a.tif", mpp=0.5, file_mpp=None)
    assert open_slide(tmp_path / "a.tif", mpp=0.5, file_mpp=MPP).shape == (150, 150)


@pytest.fixture
def without_readers(monkeypatch):
    """Every image is a large one, and no package that reads slides is there."""
    monkeypatch.setattr("code_common.inference.slides.LARGE", 1000)
    monkeypatch.setattr("code_common.inference.slides.READERS", ())


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_large_image_needs_no_slide_reader(tmp_path, without_readers, ending, open_slide):
    """A PNG is read whole, a TIFF in parts, however it is compressed."""
    image = disks((90, 80), 3)[0]
    Image.fromarray(image).save(tmp_path / f"a.{ending}", **COMPRESSED[ending])
    slide = open_slide(tmp_path / f"a.{ending}", None, None)
    assert np.array_equal(slide.read(10, 20, 30, 40), image[10:40, 20:60])
    assert slide.large == (ending == "tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_tiff_is_turned_as_a_small_one_is(
    tmp_path, without_readers, orientation, open_slide
):
    image, path = disks((90, 80), 3)[0], tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    slide = open_slide(path, None, None)
    assert slide.large
    assert np.array_equal(slide.read(0, 0, *slide.shape), read_image(path))


def test_a_plain_tiff_is_mapped_and_its_size_needs_no_reader(tmp_path, without_readers, open_slide):
    image = disks((90, 80), 3)[0]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    slide = open_slide(tmp_path / "a.tif", None, None)
    assert np.array_equal(slide.read(10, 20, 30, 40), image[10:40, 20:60]) and slide.large
    assert slide.thumbnail().shape == (3, 3, 3)


def test_tissue_and_glass():
    thumbnail = np.full((60, 60, 3), (243, 241, 244), np.uint8)
    assert not tissue(thumbnail).any()
    thumbnail[20:40, 20:40] = PALE
    mask = tissue(thumbnail)
    two_more_on_each_side = 24 * 24
    assert mask[20:40, 20:40].all() and mask.sum() <= two_more_on_each_side


def test_an_image_without_glass_is_tissue():
    assert tissue(np.full((9, 9, 3), PALE, np.uint8)).all()


def test_a_label_pyramid(tmp_path):
    labels = DiskMap(tmp_path / "l.u32", (3000, 2100), np.uint32)
    labels.write(1000, 500, np.full((700, 900), 70_000, np.uint32))
    write_label_map(tmp_path / "l.ome.tif", labels, mpp=None, large=True)
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as tiff:
        levels = tiff.series[0].levels
        assert [level.shape for level in levels] == [(3000, 2100), (1500, 1050), (750, 525)]
        whole = labels.read(0, 0, 3000, 2100)
        for k, level in enumerate(levels):
            assert np.array_equal(level.asarray(), whole[:: 2**k, :: 2**k])


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (4097, 3), (1, 1)])
def test_the_overlay_of_an_image_as_thin_as_a_line(tmp_path, shape, open_slide):
    write_png(tmp_path / "t.png", np.full((*shape, 3), 200, np.uint8))
    labels = DiskMap(tmp_path / "map", shape, np.uint32)
    labels.write(0, 0, np.full(shape, 7, np.uint32))
    picture, small, by = reduced(open_slide(tmp_path / "t.png", None, None), labels)
    assert picture.shape[:2] == small.shape == tuple(max(1, n // by) for n in shape)
    assert (picture == 200).all() and (small == 7).all()


def write_stating(path, mpp):
    """Write a slide whose description states its resolution in these words."""
    image = disks((300, 300), 3)[0]
    description = f"Aperio Image Library v1\n300x300|AppMag = 40|MPP = {mpp}"
    tifffile.imwrite(path, image, tile=(256, 256), description=description, metadata=None)


@pytest.mark.parametrize("mpp", ["", "abc", "0,25", "nan", "inf", "-0.25", "0", "25000000", "1e-9"])
def test_a_resolution_that_makes_no_sense_is_none(tmp_path, mpp, open_slide):
    pytest.importorskip("tiffslide")
    write_stating(tmp_path / "s.svs", mpp)
    slide = open_slide(tmp_path / "s.svs", None, None)
    assert slide.mpp is None and slide.file_mpp is None and slide.shape == (300, 300)
    with pytest.raises(InputError, match=r"s\.svs: does not say .* give --file-mpp"):
        open_slide(tmp_path / "s.svs", 0.5, None)
    assert open_slide(tmp_path / "s.svs", 0.5, 0.25).shape == (150, 150)


@pytest.mark.parametrize("name", ["s.svs", "large.tif", "small.tif"])
def test_pixels_that_are_no_squares_are_told(tmp_path, monkeypatch, name, open_slide):
    pytest.importorskip("tiffslide")
    monkeypatch.setattr("code_common.inference.slides.LARGE", 1e6 if "small" in name else 0)
    image = disks((300, 300), 3)[0]
    more = {"resolution": (4e4, 2e4), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(tmp_path / name, image, tile=(256, 256), **more)
    stated, given = (" ".join(open_slide(tmp_path / name, None, mpp).notes) for mpp in (None, 0.3))
    assert f"{name}: its pixels are no squares, 0.25 x 0.5 microns" in stated
    assert "squares" not in given


def test_a_large_ome_tiff_keeps_its_resolution(tmp_path, monkeypatch, open_slide):
    pytest.importorskip("tiffslide")
    monkeypatch.setattr("code_common.inference.slides.LARGE", 0)
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "axes": "YXS"}
    image = disks((300, 300), 3)[0]
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as file:
        file.write(image, tile=(64, 64), compression="deflate", subifds=1, metadata=size)
        file.write(image[::2, ::2], tile=(64, 64), compression="deflate", subfiletype=1)
    assert open_slide(tmp_path / "s.ome.tif", None, None).file_mpp == 0.25
    assert open_slide(tmp_path / "s.ome.tif", 0.5, None).shape == (150, 150)


@pytest.mark.parametrize("largest", [0, 300 * 300])  # read in parts, and whole
def test_a_tiff_is_read_at_what_it_states_unless_told_otherwise(
    tmp_path, monkeypatch, open_slide, largest
):
    monkeypatch.setattr("code_common.inference.slides.LARGE", largest)
    path, image = tmp_path / "t.tif", disks((300, 300), 3)[0]
    per_cm = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}  # 0.25 microns per pixel
    tifffile.imwrite(path, image, photometric="rgb", **per_cm)
    slides = [open_slide(path, *given) for given in ((None, None), (None, 0.3), (0.5, None))]
    assert {slide.large for slide in slides} == {largest == 0}
    assert [slide.mpp for slide in slides] == pytest.approx([0.25, 0.3, 0.5])
    assert [slide.scale for slide in slides] == pytest.approx([1, 1, 2])


@pytest.mark.parametrize("size", [(1, 1), (20, 30)])
def test_a_slide_of_a_few_pixels(tmp_path, size, open_slide):
    pytest.importorskip("tiffslide")
    image = np.full((*size, 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "s.svs", image, tile=(256, 256), metadata=None)
    assert open_slide(tmp_path / "s.svs", None, None).shape == size
    few = open_slide(tmp_path / "s.svs", 20, 0.25)
    assert few.shape == (1, 1) and few.read(0, 0, 1, 1).shape == (1, 1, 3)


def test_an_image_that_would_be_enlarged_beyond_the_memory_is_refused(
    tmp_path, monkeypatch, open_slide
):
    write_png(tmp_path / "t.png", disks((90, 90), 3)[0])
    monkeypatch.setattr("code_common.files.image_kinds.memory_bytes", lambda: 1_000_000)
    assert open_slide(tmp_path / "t.png", 0.25, 0.5).shape == (180, 180)
    with pytest.raises(InputError, match=r"t\.png: 3,600 x 3,600 pixels take"):
        open_slide(tmp_path / "t.png", 0.0125, 0.5)


def test_equal_maps_are_equal_files(tmp_path):
    """The UUID of an OME-TIFF is that of its content."""
    labels, texts = DiskMap(tmp_path / "l.u32", (600, 700), np.uint32), []
    for name, mpp in [("a", 0.25), ("b", 0.25), ("c", 0.5)]:
        write_label_map(tmp_path / f"{name}.ome.tif", labels, mpp, large=True)
        texts.append((tmp_path / f"{name}.ome.tif").read_bytes())
    labels.write(0, 0, np.ones((1, 1), np.uint32))
    write_label_map(tmp_path / "d.ome.tif", labels, 0.25, large=True)
    assert texts[0] == texts[1]
    ids = {tifffile.TiffFile(path).ome_metadata.partition("urn:uuid:")[2][:36]
           for path in tmp_path.glob("*.ome.tif")}  # fmt: skip
    assert len(ids) == 3


def test_a_thumbnail_of_a_file_without_coarse_levels_is_made_in_parts(
    tmp_path, monkeypatch, open_slide
):
    """The whole image need not fit into the memory; the thumbnail has the same bits."""
    pytest.importorskip("tiffslide")
    write_slide(tmp_path / "a.svs", levels=1)
    whole = open_slide(tmp_path / "a.svs", None, None).thumbnail()
    largest, region = [], slides.PyramidFile.region

    def noted(self, row, col, rows, cols, scale):
        largest.append(rows * cols * scale**2)
        return region(self, row, col, rows, cols, scale)

    monkeypatch.setattr(slides.PyramidFile, "region", noted)
    monkeypatch.setattr(slides, "PIXELS_AT_ONCE", 200_000)
    assert np.array_equal(open_slide(tmp_path / "a.svs", None, None).thumbnail(), whole)
    assert len(largest) > 5 and max(largest) <= 200_000


def open_files():
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files")
def test_what_was_opened_is_closed_behind_a_refusal_too(tmp_path):
    pytest.importorskip("tiffslide")
    write_stating(tmp_path / "s.svs", "")
    before = open_files()
    slide = slides.open_slide(tmp_path / "s.svs", None, None)
    assert open_files() == before + 1
    slide.close()
    with pytest.raises(InputError, match="give --file-mpp"):
        slides.open_slide(tmp_path / "s.svs", 0.5, None)
    assert open_files() == before
