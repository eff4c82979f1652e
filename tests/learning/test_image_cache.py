"""Decoded images in memory or on the disk: the same arrays, and colours of all of their pixels."""

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.writing import write_json, write_png
from code_common.learning.colours import ColourStatistics, read_colours
from code_common.learning.image_cache import make_image_cache
from code_common.learning.transforms import Warp

BYTES_PER_PIXEL = 5
MORE_THAN_ANY_MEMORY = 1 << 40  # bytes per pixel


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


@pytest.fixture
def path(tmp_path, image):
    """The file of the image."""
    write_png(tmp_path / "tile.png", image)
    return tmp_path / "tile.png"


@pytest.mark.parametrize("where", ["memory", "auto"])
def test_a_small_data_set_stays_in_memory(tmp_path, path, image, where):
    cache = make_image_cache(tmp_path / "cache", [path], BYTES_PER_PIXEL, where)
    assert cache("a", image) is image
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("where", "bytes_per_pixel"), [("disk", BYTES_PER_PIXEL), ("auto", MORE_THAN_ANY_MEMORY)]
)
def test_arrays_on_disk_are_the_same_arrays(tmp_path, path, image, where, bytes_per_pixel):
    cached = make_image_cache(tmp_path / "cache", [path], bytes_per_pixel, where)("a", image)
    assert np.array_equal(cached, image) and not cached.flags.writeable
    assert isinstance(cached.base, np.memmap)
    warp = Warp(16, np.array([[1.0, 0, 7], [0, 1, 7]]))
    assert np.array_equal(warp.image(cached), warp.image(image))


def test_colour_statistics_are_those_of_all_pixels(tmp_path):
    rng, statistics = np.random.default_rng(0), ColourStatistics()
    images = [rng.integers(0, 255, (rows, 90, 3), np.uint8) for rows in (70, 20, 33)]
    for image in images:
        statistics.add(image)
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    write_json(tmp_path / "colours.json", statistics.result())
    mean, std = read_colours(tmp_path / "colours.json")
    assert np.allclose(mean, pixels.mean(0)) and np.allclose(std, pixels.std(0))


@pytest.mark.parametrize(
    "value", [{}, {"mean": [1, 2, 3], "std": [1, 2, 0]}, {"mean": [1, 2], "std": [1, 2]}, [1]]
)
def test_a_file_without_colours_is_named(tmp_path, value):
    write_json(tmp_path / "colours.json", value)
    with pytest.raises(InputError, match="colours.json: expected the mean and std"):
        read_colours(tmp_path / "colours.json")
