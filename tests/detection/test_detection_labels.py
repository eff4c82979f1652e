"""Points, partial points, extended Gaussian mask, weights, background propagation, loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import slow_known

from code_common.arrays import distance_transform, points_from_instances
from code_detection.labels import (
    distance_to,
    extended_gaussian_mask,
    points_from_map,
    sample_points,
    weight_map,
)
from code_detection.losses import masked_loss
from code_detection.self_training import propagate_background

RNG = np.random.default_rng


def test_a_point_is_the_centre_of_the_box():
    instances = np.zeros((20, 20), np.int32)
    instances[2:7, 4:11], instances[10:12, 10:12] = 5, 9
    assert points_from_instances(instances).tolist() == [[4, 7], [10, 10]]


def test_a_point_lies_in_its_nucleus():
    """D21: crescents, and ids of several components."""
    y, x = np.mgrid[:40, :40]
    ring = np.hypot(y - 20, x - 20)
    instances = ((ring < 15) & (ring > 10) & (x < 22)).astype(np.int32)
    instances[1:3, 36:39] = 2
    instances[37:39, 1:3] = 2
    points = points_from_instances(instances)
    assert instances[points[:, 0], points[:, 1]].tolist() == [1, 2]


def test_points_of_real_nuclei_are_all_inside(mo):
    from code_common.files.data_set import load_split
    from code_common.files.images import read_instances

    for files in load_split(mo)["train"][:3]:
        instances = read_instances(files.instances, (1000, 1000))
        points = points_from_instances(instances)
        ids = np.unique(instances)[1:]
        assert np.array_equal(instances[points[:, 0], points[:, 1]], ids)


def test_a_point_label_has_a_point_per_dot():
    label = np.zeros((20, 20), np.int32)
    label[3, 4] = 255
    label[10:13, 10:13] = 1  # a dot painted with a brush, any value
    assert points_from_map(label).tolist() == [[3, 4], [11, 11]]
    assert points_from_map(np.zeros((4, 4), np.int32)).shape == (0, 2)


def test_points_that_touch_are_told_apart_by_ids():
    label = np.zeros((20, 20), np.int32)
    label[3:6, 3:6], label[3:6, 6:9], label[12, 12] = 1, 3, 2
    assert points_from_map(label).tolist() == [[4, 4], [12, 12], [4, 7]]
    shades = np.where(label == 1, 128, label > 0)  # of one dot, painted softly
    assert len(points_from_map(shades.astype(np.int32))) == 2


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 1), st.integers(0, 5))
def test_partial_points_are_drawn_without_replacement(n, ratio, seed):
    """D2: as many as asked for, each once, at least one."""
    points = np.arange(2 * n).reshape(n, 2)
    sample = sample_points(points, ratio, RNG(seed))
    assert len(sample) == max(1, round(n * ratio))
    assert len({tuple(p) for p in sample.tolist()}) == len(sample)
    assert np.array_equal(sample, sample_points(points, ratio, RNG(seed)))


def test_one_point_in_numbers():
    target, known = extended_gaussian_mask(np.array([[32, 32]]), (64, 64), 11, 22, 2.75)
    assert target[32, 32] == 1
    assert target[32, 35] == pytest.approx(np.exp(-9 / (2 * 2.75**2)))
    assert target[32, 38] > 0.05 and target[32, 39] == 0  # cut at 2.45 sigma = 6.7 px
    assert target[32, 43:].max() == 0
    assert known[32, 54] and not known[32, 55] and known.sum() == 1517  # the disk of radius 22
    weight = weight_map(target, known, ~known & False, np.ones((64, 64), bool), 10)
    assert weight[32, 32] == 10 and weight[32, 45] == 1 and weight[32, 56] == 0


def test_the_nearest_of_two_points_counts():
    target, _ = extended_gaussian_mask(np.array([[20, 20], [20, 26]]), (40, 40), 11, 22, 2.75)
    assert target[20, 20] == target[20, 26] == 1
    assert target[20, 22] == pytest.approx(np.exp(-4 / (2 * 2.75**2)))


def test_without_points_nothing_is_known():
    target, known = extended_gaussian_mask(np.zeros((0, 2), int), (30, 40), 11, 22, 2.75)
    assert target.shape == (30, 40) and target.max() == 0 and not known.any()


def test_known_is_the_dilation_of_the_points():
    """The distance test gives what a dilation with a disk of radius 22 gives."""
    points = RNG(0).integers(0, 224, (9, 2))
    _, known = extended_gaussian_mask(points, (224, 224), 11, 22, 2.75)
    assert np.array_equal(known, slow_known(points, (224, 224), 22))


def test_distances_near_points_are_those_of_the_whole_map():
    """To the last bit, at the border and for a radius between two pixels, too."""
    points = np.array([[0, 0], [3, 39], [29, 12], [14, 20], [15, 22]])
    free = np.ones((30, 40), np.uint8)
    free[tuple(points.T)] = 0
    whole, near = distance_transform(free), distance_to(points, free.shape, 7.5)
    assert np.array_equal(near[whole <= 7.5], whole[whole <= 7.5])
    assert (near[whole > 7.5] > 7.5).all()


def test_weights_of_background_and_padding():
    target, known = extended_gaussian_mask(np.array([[10, 10]]), (60, 60), 11, 22, 2.75)
    background = np.zeros((60, 60), bool)
    background[50:, 50:] = True
    inside = np.ones((60, 60), bool)
    inside[:12] = False  # D9: padding is not background, even within r2
    weight = weight_map(target, known, background, inside, 10)
    assert weight[55, 55] == 1 and weight[45, 45] == 0
    assert (weight[:12] == 0).all() and weight[12, 10] == 10


def test_what_is_unknown_may_weigh_a_little_as_background():
    target, known = extended_gaussian_mask(np.array([[30, 30]]), (60, 60), 11, 22, 2.75)
    nothing = np.zeros((60, 60), bool)
    inside = ~nothing
    inside[:, :5] = False
    weight = weight_map(target, known, nothing, inside, 10, 0.1)
    assert weight[30, 30] == 10 and weight[30, 45] == 1
    assert weight[59, 59] == np.float32(0.1) and (weight[:, :5] == 0).all()


def test_the_loss_in_numbers():
    logits = torch.zeros(1, 1, 2, 2)  # 0.5 everywhere
    target = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    weight = torch.tensor([[[10.0, 10.0], [1.0, 0.0]]])
    total, count = masked_loss(logits, target, weight)["mse"]
    assert total.item() == pytest.approx(2.5 + 0 + 0.25) and count.item() == 3
    total, count = masked_loss(logits, target, weight, "bce")["bce"]
    assert total.item() == pytest.approx(21 * np.log(2)) and count.item() == 3
    weight[0, 1, 1] = 0.1  # unknown
    total, count = masked_loss(logits, target, weight)["mse"]
    assert total.item() == pytest.approx(2.75 + 0.025) and count.item() == pytest.approx(3.1)


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_a_batch_without_a_point_pulls_no_harder_than_others(kind):
    """Its pixels weigh little in the sum and in the number: the mean error is that of a pixel."""
    logits, target = torch.full((1, 1, 8, 8), 2.0), torch.zeros(1, 8, 8)
    means = []
    for unknown in (0.01, 0.1, 1.0):
        weight = torch.full((1, 8, 8), unknown)
        total, count = masked_loss(logits, target, weight, kind)[kind]
        means.append((total / count).item())
    assert means == pytest.approx([means[-1]] * 3)


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_both_losses_are_least_at_the_same_probability(kind):
    """Of nuclei of which a share is annotated, with the unknown as weak background."""
    ratio, peak, unknown = 0.1, 10.0, 0.1
    target, weight = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[peak * ratio, 0.9 * unknown]]])
    best = peak * ratio / (peak * ratio + 0.9 * unknown)
    losses = []
    for p in (best - 0.02, best, best + 0.02):
        logits = torch.full((1, 1, 1, 2), np.log(p / (1 - p)))
        losses.append(masked_loss(logits, target, weight, kind)[kind].sum)
    assert min(losses) == losses[1]


def test_nothing_known_is_no_nan():
    """D8: a batch without an annotated pixel."""
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    total, count = masked_loss(logits, torch.zeros(2, 4, 4), torch.zeros(2, 4, 4))["mse"]
    total.backward()
    assert total.item() == 0 == count.item() and (logits.grad == 0).all()


def test_background_is_where_the_probability_is_low_and_where_nuclei_merge():
    prob = np.full((100, 100), 0.4, np.float32)
    prob[:10] = 0.05
    prob[20:40, 20:40] = 0.9  # 400 px: merged
    prob[60:65, 60:65] = 0.9  # 25 px: a nucleus
    background = propagate_background(prob, np.zeros((0, 2), int), 0.1, 0.7, 200, 11)
    assert background[:10].all() and background[20:40, 20:40].all()
    assert background.sum() == 1000 + 400


def test_annotated_points_never_become_background():
    """D7: neither within r1, nor the merged component that holds the point."""
    prob = np.full((100, 100), 0.4, np.float32)
    prob[:, :50] = 0.0
    prob[20:60, 60:90] = 0.9
    points = np.array([[50, 20], [40, 70]])
    background = propagate_background(prob, points, 0.1, 0.7, 200, 11)
    y, x = np.mgrid[:100, :100]
    around = np.hypot(y - 50, x - 20) < 11
    assert not background[around].any() and background[:, :50].sum() == 5000 - around.sum()
    assert not background[:, 50:].any()
