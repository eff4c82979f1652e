"""One drawn map, applied alike to images, labels and points."""

import numpy as np
import pytest

from code_common.learning.transforms import Augmentation, Warp, bspline_field

RNG = np.random.default_rng


def smooth_image(size=120):
    y, x = np.mgrid[:size, :size]
    value = 127 + 60 * np.sin(x / 11) + 60 * np.cos(y / 13)
    return np.repeat(value[..., None], 3, 2).astype(np.uint8)


def test_without_change_the_crop_is_a_part_of_the_image():
    image = smooth_image()
    warp = Warp(32, np.array([[1.0, 0, 36], [0, 1, 56]]))
    assert np.array_equal(warp.image(image), image[56:88, 36:68])
    assert np.array_equal(warp.label(image[..., 0], 0), image[56:88, 36:68, 0])
    assert warp.points(np.array([[56, 36], [60, 50], [55, 40]])).tolist() == [[0, 0], [4, 14]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("elastic", [0.0, 6.0])
def test_image_and_label_are_moved_alike(seed, elastic):
    """The same array as image and as label comes back the same, up to interpolation."""
    image = smooth_image()
    augmentation = Augmentation(64, elastic=elastic, elastic_probability=1)
    warp = augmentation.draw(RNG(seed), window=(10, 20), patch=80)
    inside = warp.inside(image.shape[:2])
    as_image, as_label = warp.image(image)[..., 0], warp.label(image[..., 0], 0)
    difference = np.abs(as_image.astype(int) - as_label)[inside]
    assert inside.any() and np.quantile(difference, 0.99) <= 9


@pytest.mark.parametrize("seed", range(20))
def test_points_move_with_the_image(seed):
    """D10: every point inside the crop is there, at the pixel where the image shows it."""
    rng = RNG(seed)
    points = np.stack([rng.permutation(np.arange(6, 194, 12))] * 2, 1)
    points[:, 1] = rng.permutation(points[:, 1])
    label = np.zeros((200, 200), np.uint8)
    for number, (row, col) in enumerate(points, start=1):
        label[row - 2 : row + 3, col - 2 : col + 3] = number
    warp = Augmentation(96).draw(rng, window=(40, 40), patch=120)
    moved, seen = warp.points(points), warp.label(label, 0)
    hit = seen[moved[:, 0], moved[:, 1]]
    assert (hit > 0).all() and len(set(hit.tolist())) == len(moved)
    far_from_the_border = set(np.unique(seen[4:-4, 4:-4]).tolist()) - {0}
    assert far_from_the_border <= set(hit.tolist())


def test_outside_of_the_image_nothing_is_known():
    """D9, D17: padding has its own mask and label, and black pixels are just black."""
    image = np.zeros((40, 40, 3), np.uint8)
    warp = Warp(64, np.array([[1.0, 0, -12], [0, 1, -12]]))
    inside = warp.inside((40, 40))
    assert inside.sum() == 1600 and inside[12:52, 12:52].all()
    label = warp.label(np.ones((40, 40), np.uint8), 2)
    assert (label[inside] == 1).all() and (label[~inside] == 2).all()
    assert (warp.image(image) == 0).all()


def test_the_ranges_are_kept_and_fully_used():
    size, patch, first = 64, 100, 100
    augmentation = Augmentation(size)
    low, high = augmentation.scale
    assert (low, high) == (0.8, 1.25)  # as published
    scales, centres = [], []
    for seed in range(300):
        warp = augmentation.draw(RNG(seed), window=(first, first), patch=patch)
        scales.append(1 / np.sqrt(abs(np.linalg.det(warp.matrix[:, :2]))))
        middle_of_crop = (size - 1) / 2
        centres.append(warp.matrix @ [middle_of_crop, middle_of_crop, 1])
    assert low - 1e-6 <= min(scales) < low + 0.02
    assert high - 0.02 < max(scales) <= high + 1e-6
    play = (patch - size / high) / 2
    middle_of_patch = first + (patch - 1) / 2
    assert np.abs(np.array(centres) - middle_of_patch).max() <= play + 1e-6


def test_flips_happen_half_of_the_time():
    augmentation = Augmentation(32, scale=(1, 1), shear=0, rotation=0)
    warps = [augmentation.draw(RNG(seed), window=(0, 0), patch=32) for seed in range(200)]
    signs = [np.sign(np.diag(warp.matrix[:, :2])) for warp in warps]
    assert (np.abs(np.mean(signs, 0)) < 0.25).all()


def test_all_spline_parameters_are_drawn():
    """D16: a third of the displacement's parameters was zero."""
    fields = np.stack([bspline_field(RNG(s), 60, 10.0) for s in range(60)])
    deviation = fields.std(0)
    assert deviation.shape == (60, 60, 2) and deviation.min() > 2 and deviation.max() < 9
    assert np.abs(np.diff(fields, axis=1)).max() < 3  # smooth


def test_points_through_a_field_are_refused():
    with pytest.raises(ValueError, match="field"):
        Warp(4, np.eye(2, 3), np.zeros((4, 4, 2), np.float32)).points(np.zeros((1, 2)))
