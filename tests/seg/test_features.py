"""Features of a nucleus with known answers."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import hed2rgb
from skimage.measure import regionprops

from code_seg.features import nucleus_features


def ellipse(a, b, shape=(61, 81)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - 30) / b) ** 2 + ((x - 40) / a) ** 2 <= 1


def features(mask, corner=(0, 0), colour=(90, 60, 140), **more):
    image = np.where(mask[..., None], np.uint8(colour), np.uint8(240)).astype(np.uint8)
    (box,) = ndimage.find_objects(mask.astype(int))
    prob = np.where(mask, 0.75, 0.1)
    return nucleus_features(mask[box], box, corner, image, prob, **more)


def test_an_ellipse():
    values = features(ellipse(24, 12), corner=(100, 200))
    assert (values["x"], values["y"]) == (240.5, 130.5)
    assert values["area"] == pytest.approx(np.pi * 24 * 12, rel=0.02)
    assert values["eccentricity"] == pytest.approx(np.sqrt(1 - 0.25), abs=0.01)
    assert values["major_axis"] == pytest.approx(48, rel=0.02)
    assert values["minor_axis"] == pytest.approx(24, rel=0.02)
    around = np.pi * (3 * 36 - np.sqrt((3 * 24 + 12) * (24 + 3 * 12)))  # Ramanujan
    assert values["perimeter"] == pytest.approx(around, rel=0.05)
    assert values["solidity"] > 0.95 and values["probability"] == pytest.approx(0.75)
    assert (values["red"], values["green"], values["blue"]) == (90, 60, 140)


def test_a_disk_is_round_and_a_line_no_error():
    assert features(ellipse(15, 15))["eccentricity"] < 0.05
    line = np.zeros((5, 9), bool)
    line[2] = True
    values = features(line)
    assert values["solidity"] == 1 and values["area"] == 9
    assert np.isfinite(list(values.values())).all()
    dot = np.zeros((3, 3), bool)
    dot[1, 1] = True
    assert np.isfinite(list(features(dot).values())).all()


def test_haematoxylin_rises_with_the_stain_and_not_with_eosin():
    def of(h, e):
        colour = hed2rgb(np.array([[[h, e, 0.0]]]))[0, 0] * 255
        return features(ellipse(9, 9), colour=colour.round())["haematoxylin"]

    weak, strong, eosin = of(0.05, 0.05), of(0.2, 0.05), of(0.05, 0.2)
    assert strong == pytest.approx(0.2, abs=0.02) and weak == pytest.approx(0.05, abs=0.02)
    assert eosin == pytest.approx(weak, abs=0.02)


def test_places_are_pixels_of_the_file_and_areas_of_what_was_read():
    values = features(ellipse(10, 10), corner=(10, 20), scale=2.0, mpp=0.5)
    assert (values["x"], values["y"]) == ((60 + 0.5) * 2, (40 + 0.5) * 2)
    assert values["area_um2"] == values["area"] * 0.25


@pytest.mark.parametrize("seed", range(30))
def test_shapes_are_measured_as_scikit_image_does(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=rng.integers(2, 40, 2)), rng.uniform(0.5, 3))
    mask = field >= np.quantile(field, rng.uniform(0.3, 0.95))
    values, (region,) = features(mask), regionprops(mask.astype(np.uint8))
    assert values["perimeter"] == region.perimeter
    assert values["eccentricity"] == region.eccentricity
    assert values["major_axis"] == region.axis_major_length
    assert values["minor_axis"] == region.axis_minor_length
    assert values["solidity"] == region.solidity
