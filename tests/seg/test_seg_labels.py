"""Merged points, Voronoi label, cluster label, label errors."""

import cv2
import numpy as np
import pytest
from conftest import blob_image
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from twins import slow_refine, slow_voronoi

from code_common.arrays import fill_holes
from code_common.config import parse
from code_seg.labels import (
    BACKGROUND,
    IGNORED,
    NUCLEUS,
    cluster_label,
    errors_of,
    from_colours,
    label_errors,
    refine_in_cells,
    self_training_label,
    to_colours,
    voronoi_cells,
    voronoi_label,
)
from code_seg.morphology import disk, remove_small
from code_seg.options import Options
from code_seg.points import merge_points
from code_seg.preparation import make_labels

RNG = np.random.default_rng


def points(*pairs):
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def merged(annotated, detected, radius=11):
    return merge_points(points(*annotated), points(*detected), radius).tolist()


def test_a_detection_of_an_annotated_nucleus_is_that_nucleus():
    assert merged([(20, 20)], [(20, 27), (60, 60)]) == [[20, 20], [60, 60]]


def test_a_neighbour_within_the_radius_is_not_lost():
    """D12: the second detection is another nucleus, 9 px from the annotated point."""
    assert merged([(20, 20)], [(20, 21), (20, 29)]) == [[20, 20], [20, 29]]


def test_nothing_is_there_twice():
    """D12: detections closer than half of the radius."""
    assert merged([], [(20, 20), (20, 23), (40, 40)]) == [[20, 20], [40, 40]]
    assert merged([(20, 20)], [(20, 21), (20, 24)]) == [[20, 20]]
    assert merged([(20, 20), (20, 22)], []) == [[20, 20], [20, 22]]  # a person said two
    assert merged([], []) == []


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_merging_keeps_annotated_points_and_adds_detections(n, m, seed):
    rng = RNG(seed)
    annotated, detected = rng.integers(0, 60, (n, 2)), rng.integers(0, 60, (m, 2))
    result = merge_points(annotated, detected, 11)
    assert np.array_equal(result[:n], annotated) and n <= len(result) <= n + m


@pytest.mark.parametrize(
    "given_points", [[(5, 5)], [(5, 5), (20, 30)], [(5, 5), (10, 10), (15, 15)], [(0, 0), (39, 39)]]
)
def test_few_and_collinear_points_are_nothing_special(given_points):
    """D33."""
    p = points(*given_points)
    cells, _ = voronoi_cells(p, (40, 40))
    assert np.unique(cells).tolist() == list(range(1, len(p) + 1))
    label = voronoi_label(p, cells)
    assert (label[p[:, 0], p[:, 1]] == NUCLEUS).all()
    assert (label == BACKGROUND).any() == (len(p) > 1)


def test_without_points_everything_is_ignored():
    none = points()
    cells, distance = voronoi_cells(none, (20, 30))
    assert (voronoi_label(none, cells) == IGNORED).all()
    image = RNG(0).integers(0, 255, (20, 30, 3), np.uint8)
    assert (cluster_label(image, none, cells, distance, RNG(0)) == IGNORED).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 15), st.integers(0, 99))
def test_cells_partition_the_plane_by_the_nearest_point(n, seed):
    p = np.unique(RNG(seed).integers(0, 40, (n, 2)), axis=0)
    cells, distance = voronoi_cells(p, (40, 40))
    grid = np.argwhere(np.ones((40, 40)))
    all_distances = np.linalg.norm(grid[:, None] - p[None], axis=2)
    assert np.allclose(distance.ravel(), all_distances.min(1))
    to_point_of_cell = all_distances[np.arange(1600), cells.ravel() - 1]
    assert np.allclose(to_point_of_cell, all_distances.min(1))


def test_cells_equal_their_slow_twin_where_nothing_is_tied():
    p = RNG(3).integers(0, 50, (9, 2))
    fast, slow = voronoi_cells(p, (60, 50))[0], slow_voronoi(p, (60, 50))
    assert (fast != slow).mean() < 0.03  # ties go to either


def test_two_points_in_numbers():
    p = points((10, 5), (10, 14))
    label = voronoi_label(p, voronoi_cells(p, (21, 20))[0])
    assert (label[:, 9] == BACKGROUND).all()  # half way between columns 5 and 14
    assert (label == NUCLEUS).sum() == 2 * disk(2).sum() == 26
    assert label[10, 7] == NUCLEUS and label[10, 8] == IGNORED


def two_tone(shape=(80, 80)):
    """Pink ground, three dark disks of radius 9, and their points."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    p = points((20, 20), (20, 60), (60, 40))
    nuclei = np.any([np.hypot(y - r, x - c) <= 9 for r, c in p], axis=0)
    image = np.where(nuclei[..., None], (90, 60, 140), (230, 180, 215)).astype(np.uint8)
    return image, p, nuclei


def test_clusters_find_dark_nuclei():
    image, p, nuclei = two_tone()
    cells, distance = voronoi_cells(p, nuclei.shape)
    label = cluster_label(image, p, cells, distance, RNG(0))
    assert (label[p[:, 0], p[:, 1]] == NUCLEUS).all()
    assert nuclei[label == NUCLEUS].all() and (label == NUCLEUS).sum() > 0.5 * nuclei.sum()
    assert not nuclei[label == BACKGROUND].any() and (label == BACKGROUND).mean() > 0.2
    assert (distance[label == BACKGROUND] > 10).all()


def test_a_large_pale_cluster_does_not_win_by_one_point():
    """Ten points on dark nuclei, eleven on pale ones, as light as the stroma around."""
    nuclei, image = np.zeros((200, 400), bool), np.full((200, 400, 3), 230, np.uint8)
    image[:, :200] = 165
    y, x = np.mgrid[:200, :400]
    dark = np.array([(r, c) for r in (30, 70, 110, 150, 185) for c in (250, 340)])
    pale = np.array([(r, c) for r in (20, 55, 90, 125, 160, 190) for c in (60, 140)])[:11]
    for r, c in dark:
        nuclei |= (y - r) ** 2 + (x - c) ** 2 <= 100
    image[nuclei] = 80
    points = np.concatenate([dark, pale])
    arguments = image, points, *voronoi_cells(points, nuclei.shape), RNG(0)
    label = cluster_label(*arguments, colour_scale=3.0)
    assert nuclei[label == NUCLEUS].all() and (label == NUCLEUS).sum() > 0.5 * nuclei.sum()
    # Twice as many points on the stroma are another matter: most points decide, as published.
    more = np.array([(r, c) for r in range(10, 200, 30) for c in (30, 100, 170)])
    points = np.concatenate([dark, more])
    arguments = image, points, *voronoi_cells(points, nuclei.shape), RNG(0)
    label = cluster_label(*arguments, colour_scale=3.0)
    assert not nuclei[label == NUCLEUS].any()


def test_clusters_are_reproducible():
    image, p, nuclei = two_tone()
    image = (
        (image.astype(int) + RNG(1).integers(-20, 20, image.shape)).clip(0, 255).astype(np.uint8)
    )
    arguments = (image, p, *voronoi_cells(p, nuclei.shape))
    assert np.array_equal(cluster_label(*arguments, RNG(5)), cluster_label(*arguments, RNG(5)))


@pytest.mark.parametrize("seed", range(3))
def test_refinement_equals_its_slow_twin(seed):
    rng = RNG(seed)
    p = rng.integers(0, (120, 110), (14, 2))
    cells, _ = voronoi_cells(p, (120, 110))
    mask = ndimage.gaussian_filter(rng.normal(size=(120, 110)), 3) > 0.02
    assert np.array_equal(refine_in_cells(mask, cells), slow_refine(mask, cells))


def test_refinement_shrinks_fills_and_separates():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    mask[28:32, 20:23] = False  # a hole
    one = np.ones((60, 60), np.int32)
    refined = refine_in_cells(mask, one)
    assert refined[30, 21] and 0.6 * 1600 < refined.sum() < 1600
    two = one.copy()
    two[:, 30:] = 2
    assert ndimage.label(refine_in_cells(mask, two))[1] == 2


def test_holes_and_small_parts():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:9, 2:9] = 1
    mask[5, 5] = 0
    mask[0:3, 15:18] = 1
    mask[0, 16] = 0  # open to the border: no hole
    filled = fill_holes(mask)
    assert filled[5, 5] == 1 and filled[0, 16] == 0
    assert np.array_equal(filled, ndimage.binary_fill_holes(mask))
    assert remove_small(mask, 9).sum() == 48 and remove_small(mask, 8).sum() == 56


def test_label_errors_in_numbers():
    truth = np.zeros((10, 10), np.int32)
    truth[:5] = 1
    voronoi = np.full((10, 10), IGNORED)
    voronoi[4:8, 0] = BACKGROUND  # one of four pixels on the nucleus
    clusters = np.full((10, 10), IGNORED)
    clusters[0:2], clusters[5, :5], clusters[4, :5], clusters[8:] = 1, 1, 0, 0
    errors = label_errors(voronoi, clusters, truth)
    assert errors["edge_on_nuclei"] == 0.25
    assert errors["nucleus_wrong"] == 5 / 25 and errors["background_wrong"] == 5 / 25
    assert errors["cluster_wrong"] == 10 / 50 and errors["nuclei_found"] == 20 / 50
    assert errors["ignored"] == 0.5


def test_label_of_own_nuclei():
    """Those with one point count, a gap parts the two that touch, what is in doubt is ignored."""
    nuclei = np.zeros((12, 20), np.int32)
    nuclei[2:8, 2:6], nuclei[2:8, 6:10], nuclei[2:8, 14:18] = 3, 1, 2
    prob = np.where(nuclei > 0, 0.9, 0.1)
    prob[10, :] = 0.45
    label = self_training_label(nuclei, prob, points((4, 3), (4, 8)))
    assert (label[2:8, 2:4] == NUCLEUS).all() and (label[2:8, 8:10] == NUCLEUS).all()
    assert (label[2:8, 4:8] == BACKGROUND).all()  # where they touch
    assert (label[2:8, 14:18] == IGNORED).all()  # no point says that it is one
    assert (label[10] == IGNORED).all() and (label[11] == BACKGROUND).all()
    assert (label[:2] == BACKGROUND).all()
    several = self_training_label(nuclei, prob, points((4, 3), (6, 3), (4, 8)))  # may be two nuclei
    assert (several[2:8, 2:4] == IGNORED).all() and (several[2:8, 8:10] == NUCLEUS).all()
    # Ids do not matter, nor do points beside the nuclei; without a point nothing is nucleus.
    other = np.array([0, 7, 5, 2])[nuclei]
    assert np.array_equal(label, self_training_label(other, prob, points((4, 4), (4, 8), (0, 0))))
    assert not (self_training_label(nuclei, prob, points()) == NUCLEUS).any()
    assert errors_of(label, nuclei) == {
        "wrong": pytest.approx(24 / 196),
        "nucleus_wrong": 0,
        "nuclei_found": 24 / 72,
        "background_wrong": pytest.approx(24 / 172),
        "ignored": pytest.approx(44 / 240),
    }


def test_colours_on_disk():
    """D17: black is 'ignored' and nothing else."""
    label = np.array([[BACKGROUND, NUCLEUS, IGNORED]], np.uint8)
    picture = to_colours(label)
    assert picture.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 0]]]
    assert np.array_equal(from_colours(picture), label)
    assert from_colours(np.full((1, 1, 3), 77, np.uint8)) == IGNORED


def test_real_labels_are_as_good_as_measured(mo):
    """MO, all points of one training tile: the errors published for this label (method notes)."""
    from code_common.arrays import points_from_instances
    from code_common.files.data_set import load_split
    from code_common.files.images import read_image, read_instances

    files = load_split(mo)["train"][0]
    image = read_image(files.image)
    truth = read_instances(files.instances, image.shape[:2])
    p = points_from_instances(truth)
    cells, distance = voronoi_cells(p, truth.shape)
    errors = label_errors(
        voronoi_label(p, cells), cluster_label(image, p, cells, distance, RNG(0)), truth
    )
    assert errors["edge_on_nuclei"] < 0.10 and errors["cluster_wrong"] < 0.12
    assert errors["nuclei_found"] > 0.5 and 0.2 < errors["ignored"] < 0.7


def test_the_disk_of_opencv_is_ours():
    assert disk(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    dot = np.zeros((15, 15), np.uint8)
    dot[7, 7] = 1
    assert cv2.dilate(dot, disk(7)).sum() == disk(7).sum() == 149


def test_large_nuclei_are_not_the_background():
    """Beyond 10 px of its point a large dark nucleus is a cluster as far away as the background."""
    y, x = np.mgrid[:160, :160]
    p = points((40, 40), (40, 120), (120, 40), (120, 120))
    nuclei = np.any([np.hypot(y - r, x - c) <= 26 for r, c in p], axis=0)
    image = np.where(nuclei[..., None], (90, 60, 140), (230, 180, 215)).astype(np.uint8)
    image = (image.astype(int) + RNG(0).integers(-9, 10, image.shape)).clip(0, 255).astype(np.uint8)
    cells, distance = voronoi_cells(p, nuclei.shape)
    for seed in range(4):
        label = cluster_label(image, p, cells, distance, RNG(seed))
        assert (label == BACKGROUND).any() and not nuclei[label == BACKGROUND].any()


def test_the_red_channel_does_not_see_eosin(tmp_path):
    """What stains green and blue away changes the label of 'rgb', and not that of 'red'."""
    rng = np.random.default_rng(3)
    image, instances = blob_image(rng, (80, 80), 9)
    ids = np.unique(instances[instances > 0])
    points = np.array(ndimage.center_of_mass(instances > 0, instances, ids)).round().astype(int)
    pink = image.copy()
    pink[:, 40:, 1:] //= 3
    made = {}
    for seen in ("rgb", "red"):
        given = ["--cluster-colours", seen, "--save-dir", str(tmp_path)]
        options = parse(Options, "", given)
        made[seen] = [make_labels(options, one, points, 0)[1] for one in (image, pink)]
    assert (made["red"][0] == made["red"][1]).all()
    assert (made["rgb"][0] != made["rgb"][1]).any()
    cells, distance = voronoi_cells(points, (80, 80))
    rng = np.random.default_rng((options.seed(0), 0))
    alone = cluster_label(image[..., :1], points, cells, distance, rng, colour_scale=4.0)
    assert (alone == made["red"][0]).all()
    assert (made["red"][0][instances > 0] == NUCLEUS).mean() > 0.3  # disks of 6 px are eroded
