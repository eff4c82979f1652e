"""Detections of a probability map, and their optimal matching."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_common.arrays import assign
from code_common.detection_scores import add, count, match
from code_common.inference.detections import detect

RNG = np.random.default_rng


def gaussians(points, shape=(80, 80), sigma=2.75, height=1.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    bumps = [height * np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * sigma**2)) for r, c in points]
    return np.max(bumps, axis=0).astype(np.float32)


def detections(prob, **changes):
    arguments = {"threshold": 0.35, "min_area": 12, "max_area": 200, **changes}
    return sorted(map(tuple, detect(prob, **arguments).tolist()))


def test_a_peak_is_a_detection_at_its_centre():
    assert detections(gaussians([(20, 30), (60, 61)])) == [(20, 30), (60, 61)]


def test_small_components_are_dropped_also_a_single_one():
    """D11: the filter ran only with several components."""
    prob = np.zeros((40, 40), np.float32)
    prob[10:13, 10:13] = 0.9  # 9 px
    assert detections(prob) == []
    assert detections(prob, min_area=9) == [(11, 11)]
    assert detections(np.zeros((5, 5), np.float32)) == []


def test_touching_detections_are_split_not_dropped():
    """D11."""
    prob = gaussians([(40, 30), (40, 44)], sigma=5)
    prob = np.maximum(prob, 0.4 * (gaussians([(40, 37)], sigma=9) > 0.5))
    assert len(detections(prob, max_area=10**6)) == 1
    assert detections(prob, max_area=200) == [(40, 30), (40, 44)]


def test_a_large_plateau_is_one_detection_not_many():
    noise = RNG(0).uniform(0, 0.05, (60, 60)).astype(np.float32)
    assert len(detections(0.4 + noise)) <= 1


def test_a_detection_lies_on_its_component():
    """D12: the centroid of a crescent is off it."""
    y, x = np.mgrid[:40, :40]
    r = np.hypot(y - 20, x - 20)
    prob = ((r < 9) & (r > 6) & (x < 22)).astype(np.float32)
    ((row, col),) = detections(prob, max_area=10**6)
    assert prob[row, col] == 1


def test_matching_is_optimal_not_greedy():
    """D5: the first detection must not take the only partner of the second."""
    truth = np.array([[0, 0], [0, 10]])
    detected = np.array([[0, 4], [0, -4]])
    i, j = match(detected, truth, 6)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_a_distance_equal_to_the_radius_matches():
    assert len(match(np.array([[0, 0]]), np.array([[0, 11]]), 11)[0]) == 1
    assert len(match(np.array([[0, 0]]), np.array([[0, 12]]), 11)[0]) == 0


def brute_force(detected, truth, radius):
    """Most pairs, then least distance, over all permutations."""
    best = (0, 0.0)
    n = max(len(detected), len(truth))
    for order in itertools.permutations(range(n)):
        pairs = [(i, j) for i, j in enumerate(order) if i < len(detected) and j < len(truth)]
        d = [np.linalg.norm(detected[i] - truth[j]) for i, j in pairs]
        d = [x for x in d if x <= radius]
        best = min(best, (-len(d), sum(d)))
    return -best[0], best[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1000))
def test_matching_equals_brute_force(n, m, seed):
    rng = RNG(seed)
    detected, truth = rng.integers(0, 14, (n, 2)), rng.integers(0, 14, (m, 2))
    i, j = match(detected, truth, 5)
    assert len(set(i.tolist())) == len(i) and len(set(j.tolist())) == len(j)
    distance = np.linalg.norm(detected[i] - truth[j], axis=1).sum() if len(i) else 0.0
    pairs, least = brute_force(detected, truth, 5)
    assert len(i) == pairs and distance == pytest.approx(least)


def test_many_points_are_matched_in_their_neighbourhoods():
    truth = np.stack(np.meshgrid(np.arange(150) * 30, np.arange(150) * 30), -1).reshape(-1, 2)
    detected = truth + RNG(0).integers(-5, 6, truth.shape)
    i, j = match(detected, truth, 11)
    assert np.array_equal(i, np.arange(22500)) and np.array_equal(i, j)


def test_scores_in_numbers():
    truth = np.array([[10, 10], [30, 30], [50, 50]])
    detected = np.array([[10, 13], [30, 34], [70, 70], [10, 12]])
    scores = count(detected, truth, 11).scores()
    assert scores["precision"] == 0.5 and scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(4 / 7)
    assert scores["mean_distance"] == pytest.approx(3) and scores["std_distance"] == 1


def test_empty_sets():
    none, one = np.zeros((0, 2), int), np.array([[1, 1]])
    assert count(none, none, 11).scores()["f1"] == 1
    assert count(one, none, 11).scores() == dict(
        precision=0, recall=0, f1=0, mean_distance=0, std_distance=0
    )
    assert count(none, one, 11).scores()["f1"] == 0


def test_partial_truth_judges_only_its_neighbourhood():
    """D15: validation with partial points."""
    truth, detected = np.array([[10, 10]]), np.array([[10, 11], [10, 28], [90, 90]])
    assert count(detected, truth, 11)[:3] == (1, 2, 0)
    assert count(detected, truth, 11, known_within=22)[:3] == (1, 1, 0)


def test_images_are_pooled():
    a = count(np.array([[0, 0]]), np.array([[0, 2]]), 11)
    b = count(np.array([[0, 0], [50, 50]]), np.array([[0, 4]]), 11)
    assert add([a, b])[:3] == (2, 1, 0) and add([a, b]).scores()["mean_distance"] == 3
    assert add([]).scores()["f1"] == 1


def test_assignment_may_leave_an_item_alone_for_more_weight():
    i, j = np.array([0, 0, 1]), np.array([0, 1, 0])
    assert assign(i, j, np.array([0.9, 0.1, 0.1])).tolist() == [0]
    assert assign(i, j, np.array([0.9, 0.5, 0.5])).tolist() == [1, 2]
    assert assign(i[:0], j[:0], np.zeros(0)).tolist() == []
