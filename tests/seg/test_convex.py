"""Convex nuclei: cuts, gaps, and what speaks for them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from skimage.measure import label
from skimage.morphology import h_maxima

from code_common.inference.streaming import DiskMap, find_components
from code_seg.convex import (
    CONVEX,
    DETECTED,
    UNDETECTED,
    Evidence,
    convex_hull,
    convex_instances,
    convex_nuclei,
    cut_to_convex,
    evidence,
    fill_gaps,
    has_enough_evidence,
    has_one_maximum,
    kept_in_parts,
)
from code_seg.instances import PointsByRow, components, instances_in_parts

NONE = np.zeros((0, 2), int)


def disk(row, col, radius, shape=(60, 90)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - row, x - col) <= radius


def bar(row, col, length, shape=(60, 90)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (abs(y - row) <= 4) & (x >= col) & (x < col + length)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 30), st.integers(0, 10_000))
def test_the_hull_is_that_of_qhull(count, seed):
    mask = np.zeros((25, 31), bool)
    mask[tuple(np.random.default_rng(seed).integers(0, (25, 31), (count, 2)).T)] = True
    hull = convex_hull(mask)
    assert (hull | ~mask).all()
    corners = np.argwhere(mask)
    if np.linalg.matrix_rank(corners - corners[0]) < 2:
        return
    sides = ConvexHull(corners).equations  # normal, offset: at most 0 inside
    beyond = (np.argwhere(np.ones_like(mask)) @ sides[:, :2].T + sides[:, 2]).max(1)
    beyond = beyond.reshape(mask.shape)
    assert hull[beyond < 1e-9].all() and not hull[beyond > 1].any()


@pytest.mark.parametrize("shape", [disk(30, 40, 12), disk(30, 40, 3), bar(30, 5, 60)])
def test_what_is_convex_is_not_cut(shape):
    """However many points are in it: two detections are no reason to halve a round nucleus."""
    points = np.argwhere(shape)[[0, len(np.argwhere(shape)) // 2, -1]]
    assert np.array_equal(cut_to_convex(shape, points, 20), shape)


@pytest.mark.parametrize("seed", range(40))
def test_the_fast_way_to_one_maximum_never_overrules_the_slow_one(seed):
    """Also on plateaus, and on steps as large as the fall that counts."""
    rng = np.random.default_rng(seed)
    depth = cv2.GaussianBlur(rng.random((40, 30)).astype(np.float32), (0, 0), rng.uniform(1, 6))
    depth = np.maximum((depth - depth.min()) / np.ptp(depth) - 0.1, 0)
    if seed % 2:
        depth = np.round(depth * 20) / np.float32(20)
    highest = (depth == cv2.dilate(depth, np.ones((3, 3), np.uint8))) & (depth > 0)
    for share in (0.1, 0.25, 0.5):
        least = share * depth.max()
        found = cv2.connectedComponents(h_maxima(depth, least).astype(np.uint8))[0] - 1
        assert found <= 1 or not has_one_maximum(depth, highest, least)


def test_a_shoulder_is_no_second_maximum():
    depth = np.float32([[0, 5, 9, 5, 6, 5, 0]])
    highest = np.array([[0, 0, 1, 0, 1, 0, 0]], bool)
    assert has_one_maximum(depth, highest, 2.0) and not has_one_maximum(depth, highest, 0.5)


def test_a_neck_is_cut_with_and_without_points():
    mask = disk(30, 30, 12) | disk(30, 50, 12)
    for points in (NONE, np.array([[30, 30]]), np.array([[30, 30], [30, 50]])):
        nuclei = cut_to_convex(mask, points, 20)
        assert nuclei.max() == 2 and np.array_equal(nuclei > 0, mask)
        left, right = (nuclei == nuclei[30, c] for c in (30, 50))
        assert not left[:, 42:].any() and not right[:, :39].any()


def test_what_is_not_convex_and_has_no_neck_is_cut_between_its_points():
    mask = bar(20, 10, 40)
    mask[16:50, 10:19] = True  # an L as broad everywhere
    assert mask.sum() < CONVEX * convex_hull(mask).sum()
    assert cut_to_convex(mask, NONE, 20).max() == 1
    nuclei = cut_to_convex(mask, np.array([[46, 14], [20, 45]]), 20)
    assert nuclei.max() == 2 and nuclei[46, 14] != nuclei[20, 45]


def test_every_piece_is_cut_again():
    centres = (20, 15), (20, 36), (40, 43), (40, 64)
    mask = np.any([disk(*c, 11) for c in centres], 0)
    nuclei = cut_to_convex(mask, NONE, 20)
    assert nuclei.max() == 4
    assert len({nuclei[c] for c in centres}) == 4


def test_gaps_are_filled_where_the_network_doubts_alone():
    prob = np.full((60, 90), 0.1, np.float32)
    prob[disk(30, 40, 12)] = 0.9
    bite, notch = disk(30, 53, 6), disk(17, 40, 5)
    prob[bite & disk(30, 40, 12)] = 0.4
    prob[notch & disk(30, 40, 12)] = 0.2  # surely none
    before = (prob > 0.5).astype(np.int32)
    filled = fill_gaps(before, prob) > 0
    assert (filled | ~(before > 0)).all()
    assert filled[30, 49] and not filled[notch & (prob == np.float32(0.2))].any()
    assert not filled[~convex_hull(before > 0)].any()


def test_a_gap_between_two_is_taken_once_and_never_from_a_nucleus():
    prob = np.full((60, 90), 0.4, np.float32)
    nuclei = np.zeros((60, 90), np.int32)
    nuclei[10:40, 10:40], nuclei[10:30, 20:40] = 1, 0  # an L around
    nuclei[12:26, 24:38] = 2
    prob[nuclei > 0] = 0.9
    filled = fill_gaps(nuclei, prob)
    assert np.array_equal(filled[nuclei > 0], nuclei[nuclei > 0])
    assert set(np.unique(filled)) == {0, 1, 2} and (filled == 1).sum() > (nuclei == 1).sum()


def nuclei_of(sizes, prob=1.0):
    """Nuclei of a row each in a map of their own, and its probability map."""
    nuclei = np.zeros((2 * len(sizes), max(sizes)), np.int32)
    for k, size in enumerate(sizes):
        nuclei[2 * k, :size] = k + 1
    return nuclei, np.where(nuclei > 0, prob, 0.0).astype(np.float32)


def kept(nuclei, prob, points):
    return has_enough_evidence(evidence(nuclei, prob, points, int(nuclei.max()))).tolist()


def test_how_much_must_speak_for_a_nucleus_depends_on_those_around():
    low, high = int(400 * DETECTED), int(400 * UNDETECTED)
    nuclei, prob = nuclei_of([400, 400, 400, low - 1, low, high - 1, high])
    points = np.array([[0, 5], [2, 5], [4, 5], [6, 5], [8, 5], [99, 5], [-1, 3]])
    points = points[(points >= 0).all(1) & (points[:, 0] < len(nuclei))]
    assert kept(nuclei, prob, points) == [True] * 3 + [False, True, False, True]
    # Half as sure is half as much: a probability of .75 counts .5.
    assert kept(nuclei, np.where(prob > 0, 0.75, 0), points)[3:] == [False, False, False, False]
    # Smaller ones are whole nuclei among their like.
    small = nuclei_of([40, 40, 40])
    assert kept(*small, np.array([[0, 1], [2, 1]])) == [True, True, True]


def test_without_any_detection_what_is_there_is_the_measure():
    assert kept(*nuclei_of([100, 100, 10]), NONE) == [True, True, False]
    assert kept(np.zeros((5, 5), np.int32), np.zeros((5, 5)), NONE) == []


def test_a_crowd_of_small_ones_is_kept_beside_large_ones():
    """A lymphocyte is not measured by the tumour at the other end of the slide."""
    small = np.arange(400) >= 250
    areas, beside = np.where(small, 100, 1000), np.arange(400) * 7 % 400
    mixed = Evidence(areas, areas * 0.9, np.ones(400, bool), np.stack([beside, beside * 0], 1))
    apart = mixed._replace(centres=mixed.centres + small[:, None] * 10_000)
    assert has_enough_evidence(apart).all()
    # Among the large ones they are specks.
    assert np.array_equal(has_enough_evidence(mixed), ~small)


def disks(seed, count):
    """A noisy probability map of seven disks, and `count` points."""
    rng = np.random.default_rng(seed)
    prob = np.full((64, 64), 0.05, np.float32)
    for row, col in rng.integers(8, 56, (7, 2)):
        prob[disk(row, col, int(rng.integers(4, 10)), (64, 64))] = 0.9
    prob += rng.uniform(0, 0.04, prob.shape).astype(np.float32)
    return prob, rng.integers(0, 64, (count, 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 500))
def test_nuclei_are_connected(count, seed):
    prob, points = disks(seed, count)
    before = prob.copy(), points.copy()
    nuclei = convex_instances(components(prob, 20), prob, points, 20)
    assert np.array_equal(prob, before[0]) and np.array_equal(points, before[1])
    assert label(nuclei).max() == len(np.unique(nuclei)) - 1  # one component per id


@pytest.mark.parametrize("seed", range(60))
def test_nuclei_turn_with_the_image(seed):
    """Fixed pictures: in a few of a thousand a tie of the watershed decides about a small piece."""
    prob, points = disks(seed, seed % 13)
    whole = components(prob, 20)
    nuclei = convex_instances(whole, prob, points, 20)
    turned = convex_instances(
        np.rot90(whole), np.rot90(prob), np.stack([63 - points[:, 1], points[:, 0]], 1), 20
    )
    back = np.rot90(turned, -1) > 0
    assert (back != (nuclei > 0)).mean() < 0.01


def doubtful(seed):
    """A smooth probability map [150, 170], much of it near one half, and 60 points."""
    rng = np.random.default_rng(seed)
    prob = cv2.GaussianBlur(rng.random((150, 170)).astype(np.float32), (0, 0), 2.5)
    return np.clip(0.4 + 9 * (prob - prob.mean()), 0, 1), rng.integers(0, 150, (60, 2))


def nuclei_in_parts(prob, points, path):
    """The convex nuclei of a map [H, W] as a slide has them: component by component, by blocks."""
    by_row, candidates = PointsByRow(points), DiskMap(path, prob.shape, np.uint32)

    def read_prob(row, col, rows, cols):
        return prob[row : row + rows, col : col + cols]

    def read_mask(row, col, rows, cols):
        return read_prob(row, col, rows, cols) > 0.5

    def divide(row, col, component):
        near = by_row.within(row, col, component.shape)
        return convex_nuclei(component, read_prob(row, col, *component.shape), near, 20)

    def is_covered(row, col):
        return bool(candidates.read(row, col, 1, 1)[0, 0])

    whole_components = find_components(read_mask, prob.shape, block=37)
    parts = instances_in_parts(whole_components, read_mask, divide, 20, is_covered)
    joined, count = np.zeros(prob.shape, int), 0
    for row, col, nuclei in kept_in_parts(parts, read_prob, by_row, candidates):
        box = joined[row : row + nuclei.shape[0], col : col + nuclei.shape[1]]
        assert not (box[nuclei > 0] > 0).any()  # no pixel is of two nuclei
        box[nuclei > 0] = nuclei[nuclei > 0] + count
        count += int(nuclei.max())
    return joined


@pytest.mark.parametrize("seed", range(6))
def test_parts_give_what_the_whole_gives_where_the_network_doubts(tmp_path, seed):
    prob, points = doubtful(seed)
    whole = convex_instances(components(prob, 20), prob, points, 20)
    joined = nuclei_in_parts(prob, points, tmp_path / "map")
    # The same nuclei by other ids: as many pairs of ids as there are ids.
    pairs = np.unique(np.stack([joined.ravel(), whole.ravel()]), axis=1)
    assert len(pairs[0]) == len(np.unique(joined)) == len(np.unique(whole)) > 10
    assert (whole[(prob > 0.25) & (prob <= 0.5)] > 0).any()
