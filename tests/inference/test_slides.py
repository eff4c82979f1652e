"""Images of any kind are read in parts, at the resolution wanted."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from stand_ins import MPP, PALE, disks, write_slide

from code_common.errors import InputError
from code_common.files.images import read_image
from code_common.files.writing import write_png
from code_common.inference.ome_tiff import write_label_map
from code_common.inference.slides import find_slides, open_slide, tissue
from code_common.inference.streaming import DiskMap

COMPRESSED = {"png": {}, "tif": {"compression": "tiff_lzw"}}


@pytest.fixture
def slide(tmp_path):
    """Path and image of a slide."""
    pytest.importorskip("tiffslide")
    path = tmp_path / "slide.svs"
    return path, write_slide(path)[0]


def test_a_slide_is_read_as_it_is(slide):
    path, image = slide
    whole = open_slide(path, None, None)
    assert whole.shape == image.shape[:2] == (1200, 1500)
    assert whole.mpp == pytest.approx(MPP) and whole.scale == 1
    assert np.array_equal(whole.read(100, 200, 300, 400), image[100:400, 200:600])
    assert whole.thumbnail().shape == (38, 47, 3)


def test_a_slide_is_read_at_half_of_its_resolution(slide):
    path, image = slide
    half = open_slide(path, mpp=2 * MPP, file_mpp=None)
    assert half.shape == (600, 750) and half.scale == pytest.approx(2)
    small = cv2.resize(image, (750, 600), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(half.read(0, 0, 600, 750) - small).mean() < 1


def test_parts_of_a_slide_fit_together_at_a_resolution_that_no_level_has(slide):
    third = open_slide(slide[0], mpp=3 * MPP, file_mpp=None)
    parts = [third.read(0, col, 400, 100).astype(int) for col in (0, 100)]
    assert np.abs(np.hstack(parts) - third.read(0, 0, 400, 200)).mean() < 3


def test_a_resolution_that_a_file_does_not_say_is_asked_for(tmp_path, monkeypatch):
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
def test_a_large_image_needs_no_slide_reader(tmp_path, without_readers, ending):
    """A PNG is read whole, a TIFF in parts, however it is compressed."""
    image = disks((90, 80), 3)[0]
    Image.fromarray(image).save(tmp_path / f"a.{ending}", **COMPRESSED[ending])
    slide = open_slide(tmp_path / f"a.{ending}", None, None)
    assert np.array_equal(slide.read(10, 20, 30, 40), image[10:40, 20:60])
    assert slide.large == (ending == "tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_tiff_is_turned_as_a_small_one_is(tmp_path, without_readers, orientation):
    image, path = disks((90, 80), 3)[0], tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    slide = open_slide(path, None, None)
    assert slide.large
    assert np.array_equal(slide.read(0, 0, *slide.shape), read_image(path))


def test_a_plain_tiff_is_mapped_and_its_size_needs_no_reader(tmp_path, without_readers):
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


def test_two_images_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        write_png(tmp_path / folder / "t.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="share one name"):
        find_slides([tmp_path / "a", tmp_path / "b"])
    assert list(find_slides([tmp_path / "a"])) == ["t"]
