"""Instance maps: components, and components split by points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_seg.evaluate import make_instances
from code_seg.instances import components, split_by_points
from code_seg.options import METHODS


def disks(*centres, radius=9, shape=(60, 80)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.any([np.hypot(y - r, x - c) <= radius for r, c in centres], 0).astype(np.float32)


def test_components_are_cleaned():
    prob = disks((20, 20), (40, 60))
    prob[20, 20] = 0  # a hole
    prob[50:53, 5:8] = 0.9  # 9 px: no nucleus
    instances = components(prob, 20)
    assert np.unique(instances).tolist() == [0, 1, 2] and instances[20, 20] > 0
    assert instances[51, 6] == 0


def test_what_holds_nuclei_is_no_hole():
    """A frame around a tile, and a gland whose nuclei touch in a ring."""
    frame = disks((20, 20), (40, 60))
    frame[[2, -3], 2:-2] = frame[2:-2, [2, -3]] = 1
    assert np.bincount(components(frame, 20).ravel())[1:].tolist() == [2 * 56 + 2 * 74, 253, 253]
    angles = np.arange(24) * (2 * np.pi / 24)
    ring = np.stack([110 + 65 * np.sin(angles), 110 + 65 * np.cos(angles)], 1)
    gland = disks(*ring, shape=(220, 220))
    for inside in ([], [(110, 110), (90, 130)]):
        prob = np.maximum(gland, disks(*inside, shape=(220, 220))) if inside else gland
        assert np.array_equal(components(prob, 20) > 0, prob > 0.5)


def test_probability_one_half_is_background():
    assert components(np.full((30, 30), 0.5, np.float32), 20).max() == 0


def test_touching_nuclei_are_split_at_the_neck():
    """D13."""
    centres = np.array([[30, 25], [30, 41]])
    whole = components(disks(*centres), 20)
    assert whole.max() == 1
    split = split_by_points(whole, centres, 20)
    assert split.max() == 2 and np.array_equal(split > 0, whole > 0)
    left, right = (split == split[tuple(c)] for c in centres)
    assert abs(int(left.sum()) - int(right.sum())) < 30
    assert left[:, 35:].sum() == 0 and right[:, :31].sum() == 0


def test_one_or_no_point_changes_nothing():
    whole = components(disks((20, 20), (40, 60)), 20)
    for points in ([], [[20, 20]], [[20, 20], [40, 60]], [[0, 0], [200, 5], [-3, 2]]):
        points = np.array(points, dtype=int).reshape(-1, 2)
        assert np.array_equal(split_by_points(whole, points, 20), whole)


def test_a_piece_that_is_too_small_stays_with_its_neighbour():
    whole = components(disks((30, 30)), 20)
    points = np.array([[30, 30], [30, 39]])  # the second on the rim
    assert split_by_points(whole, points, 60).max() == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 200))
def test_splitting_keeps_the_mask_and_gives_connected_parts(n, seed):
    from skimage.measure import label

    rng = np.random.default_rng(seed)
    whole = components(disks(*rng.integers(5, 55, (6, 2)), radius=10), 20)
    before = whole.copy()
    split = split_by_points(whole, rng.integers(0, 60, (n, 2)), 20)
    assert np.array_equal(whole, before)
    assert np.array_equal(split > 0, whole > 0)
    areas = np.bincount(split.ravel())[1:]
    assert (areas >= 20).all()
    assert label(split).max() == split.max()  # one component per id
    for part in range(1, split.max() + 1):
        assert len(np.unique(whole[split == part])) == 1


def test_perfect_masks_split_at_their_points(mo):
    """MO test tile: components cap the AJI, the points lift the cap."""
    from code_common.arrays import points_from_instances
    from code_common.files.data_set import load_split
    from code_common.files.images import read_instances
    from code_seg.metrics import aji, overlaps

    files = load_split(mo)["test"][0]
    truth = read_instances(files.instances, (1000, 1000))
    whole = components((truth > 0).astype(np.float32), 20)
    split = split_by_points(whole, points_from_instances(truth), 20)
    before, after = aji(overlaps(truth, whole)), aji(overlaps(truth, split))
    assert after > before + 0.05 and after > 0.85


def test_validation_and_test_share_their_post_processing():
    """D14: holes are filled in both."""
    from code_seg.evaluate import mean_aji
    from code_seg.metrics import score

    prob = disks((20, 20), (40, 60), (30, 30))
    prob[20, 20] = 0
    truth = components(disks((20, 20), (42, 60), (30, 30)), 20)
    points = np.array([[20, 20], [30, 30], [40, 60]])
    chosen = mean_aji([prob], [points], [truth], 20)
    maps = make_instances(prob, points, 20)
    assert tuple(maps) == METHODS
    for method, instances in maps.items():
        assert score(truth, instances, 11)["aji"] == chosen[method]
        assert instances[20, 20] > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 50)])
def test_tiny_images(shape):
    assert components(np.zeros(shape, np.float32), 20).shape == shape
