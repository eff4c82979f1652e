"""Stain augmentation changes haematoxylin and eosin, and nothing else."""

import numpy as np
import pytest
from skimage.color import hed_from_rgb, rgb_from_hed

from code_common.learning.stain import Stain, draw_stain

RNG = np.random.default_rng
IMAGE = RNG(0).integers(40, 255, (30, 40, 3), np.uint8)
STRENGTH = 0.2


def stained(haematoxylin, eosin):
    """An image of these densities [H, W]."""
    density = np.stack([haematoxylin, eosin, np.zeros_like(eosin)], -1) @ rgb_from_hed
    return np.rint(255 * np.exp(-density)).astype(np.uint8)


def stains(image):
    """Densities of haematoxylin, eosin and residual [H, W, 3]: the slow, obvious way."""
    return -np.log(image / 255) @ hed_from_rgb


def test_without_strength_nothing_changes():
    assert np.array_equal(draw_stain(RNG(0), 0.0).image(IMAGE), IMAGE)


def test_twice_the_haematoxylin_is_twice_the_haematoxylin():
    h, e = RNG(1).uniform(0, 0.8, (2, 20, 20))
    linear = (hed_from_rgb * [2.0, 1.0, 1.0]) @ rgb_from_hed
    twice = Stain(np.column_stack([linear.T, np.zeros(3)]).astype(np.float32))
    # Two steps of rounding to 255 values lie between.
    assert np.abs(twice.image(stained(h, e)).astype(int) - stained(2 * h, e)).max() <= 2


@pytest.mark.parametrize("seed", range(5))
def test_each_stain_is_scaled_and_shifted_within_the_strength(seed):
    h, e = RNG(seed).uniform(0.2, 0.6, (2, 40, 40))
    image = stained(h, e)
    before, after = stains(image), stains(draw_stain(RNG(seed), STRENGTH).image(image))
    rounding = 0.02, 0.01  # of the scale, of the shift: to 255 values, twice
    for k in range(2):
        scale, shift = np.polyfit(before[..., k].ravel(), after[..., k].ravel(), 1)
        assert abs(scale - 1) <= STRENGTH + rounding[0]
        assert abs(shift) <= STRENGTH / 4 + rounding[1]
    assert np.abs(after - before).max() > 0.01


def test_draws_differ_and_are_repeatable():
    first, again, other = (draw_stain(RNG(s), STRENGTH).image(IMAGE) for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_black_and_white_are_no_trouble():
    extremes = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    for seed in range(50):
        black, white = draw_stain(RNG(seed), STRENGTH).image(extremes)[0].astype(int)
        assert black.max() < 20 and white.min() > 235
