"""Scores: known answers, slow twins, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import slow_aji, slow_dice, slow_hausdorff

from code_seg.metrics import (
    COUNTS,
    aji,
    aji_plus,
    aji_reference,
    object_dice,
    object_hausdorff,
    over_images,
    overlaps,
    panoptic,
    pixel_scores,
    score,
)

RADIUS = 4.0  # of a nucleus


def squares(*boxes, shape=(40, 40)):
    """Map with a square (row, col, side) per id."""
    out = np.zeros(shape, np.int32)
    for k, (r, c, side) in enumerate(boxes, start=1):
        out[r : r + side, c : c + side] = k
    return out


def random_map(rng, shape=(24, 26), count=6):
    out = np.zeros(shape, np.int32)
    for k in range(1, count + 1):
        r, c = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        h, w = rng.integers(2, 9, 2)
        out[r : r + h, c : c + w] = k
    return out


MAPS = st.integers(0, 10_000).map(
    lambda s: (random_map(np.random.default_rng(s)), random_map(np.random.default_rng(s + 10**6)))
)


@settings(max_examples=40, deadline=None)
@given(MAPS)
def test_fast_equals_slow(maps):
    truth, predicted = maps
    o = overlaps(truth, predicted)
    assert aji(o) == pytest.approx(slow_aji(truth, predicted))
    assert object_dice(o) == pytest.approx(slow_dice(truth, predicted))
    assert object_hausdorff(truth, predicted, o) == pytest.approx(
        slow_hausdorff(truth, predicted), rel=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(MAPS, st.integers(0, 99))
def test_numbers_and_turns_of_the_maps_change_nothing(maps, seed):
    truth, predicted = maps
    rng = np.random.default_rng(seed)
    before = score(truth, predicted, RADIUS)
    shuffle = np.concatenate([[0], 1 + rng.permutation(300)])
    for a, b in (
        (shuffle[truth], shuffle[predicted]),
        (truth[::-1], predicted[::-1]),
        (np.rot90(truth), np.rot90(predicted)),
    ):
        after = score(a, b, RADIUS)
        for name in ("aji_plus", "pq", "pixel_f1"):  # ties in the others may fall differently
            assert after[name] == pytest.approx(before[name])
    assert sum(before[name] for name in COUNTS[1:]) + 2 * before[COUNTS[0]] == (
        len(np.unique(truth)) + len(np.unique(predicted)) - 2
    )
    for name in before.keys() - COUNTS:
        assert 0 <= before[name] <= (1 if name != "object_hausdorff" else 40)


def test_identical_maps_are_perfect():
    truth = squares((2, 2, 5), (10, 10, 8), (25, 3, 6))
    found = score(truth, truth * 7, RADIUS)
    assert [found.pop(name) for name in COUNTS] == [3, 0, 0]
    for name, value in found.items():
        assert value == (0 if name == "object_hausdorff" else 1), name


def test_a_shifted_square_in_numbers():
    o = overlaps(squares((10, 10, 10)), squares((10, 15, 10)))
    assert aji(o) == aji_plus(o) == pytest.approx(50 / 150)
    assert object_dice(o) == pytest.approx(0.5)
    assert object_hausdorff(squares((10, 10, 10)), squares((10, 15, 10)), o) == 5
    assert panoptic(o) == {"pq": 0, "dq": 0, "sq": 0}
    near = overlaps(squares((10, 10, 10)), squares((10, 12, 10)))
    assert panoptic(near) == {"pq": pytest.approx(80 / 120), "dq": 1, "sq": pytest.approx(80 / 120)}


def test_missed_and_surplus_nuclei_in_numbers():
    truth, predicted = squares((0, 0, 10), (20, 20, 10)), squares((0, 0, 10), (30, 0, 5))
    o = overlaps(truth, predicted)
    assert aji(o) == pytest.approx(100 / (100 + 100 + 25))
    assert panoptic(o)["dq"] == 0.5 and panoptic(o)["sq"] == 1


def test_the_three_ajis_differ_where_they_should():
    """D3: reuse of a prediction (AJI+ does not), and a miss that takes prediction 1."""
    truth, one = squares((0, 0, 10), (0, 10, 10)), np.zeros((40, 40), np.int32)
    one[:10, :20] = 1
    o = overlaps(truth, one)
    assert aji(o) == pytest.approx(200 / 400)  # both take it: unions of 200 each
    assert aji_plus(o) == pytest.approx(100 / 300)
    missed = squares((0, 0, 10), (20, 20, 10))
    o = overlaps(missed, squares((0, 0, 10)))
    assert aji(o) == pytest.approx(100 / 200)
    assert aji_reference(missed, squares((0, 0, 10))) == pytest.approx(100 / (100 + 100 + 100))


def test_the_reference_splits_fragmented_ids():
    """D4: it counts components, the others count ids."""
    truth = squares((0, 0, 10), (20, 20, 10))
    truth[truth == 2] = 1
    assert aji(overlaps(truth, truth)) == 1 and aji_reference(truth, truth) == 1
    joined = aji(overlaps(truth, squares((0, 0, 10), (20, 20, 10))))
    assert joined == pytest.approx(100 / 300)
    assert aji_reference(truth, squares((0, 0, 10), (20, 20, 10))) == 1


def test_empty_maps():
    """D4: no division by zero; nothing to find and nothing found is perfect."""
    none, some = np.zeros((30, 40), np.int32), squares((2, 2, 6), shape=(30, 40))
    pairs = (none, none), (some, none), (none, some)
    both, missed, surplus = (score(*pair, RADIUS) for pair in pairs)
    for name in both:
        if name == "object_hausdorff":
            assert (both[name], missed[name], surplus[name]) == (0, 50, 50)
        elif name == "pixel_accuracy":
            assert both[name] == 1 and missed[name] == surplus[name] == 1 - 36 / 1200
        elif name not in ("aji_reference", *COUNTS):
            assert (both[name], missed[name], surplus[name]) == (1, 0, 0), name


def test_a_centre_is_right_within_the_radius():
    truth, predicted = squares((10, 10, 9)), squares((10, 14, 9))
    assert score(truth, predicted, 4)["centre_f1"] == 1
    assert score(truth, predicted, 3.9)["centre_f1"] == 0
    merged = squares((0, 0, 10), (0, 10, 10))  # one nucleus over two: its centre is between them
    found = score(merged, np.minimum(merged, 1), 6)
    assert [found[name] for name in COUNTS] == [1, 0, 1]
    assert found["centre_precision"] == 1 and found["centre_recall"] == 0.5


def test_scores_of_centres_are_pooled_over_images_and_the_others_averaged():
    one, none = squares((0, 0, 10)), squares((30, 30, 6))
    nine = squares(*((12 * row, 12 * col, 8) for row in range(3) for col in range(3)))
    images = [score(one, one, RADIUS), score(nine, none, RADIUS)]
    found = over_images(images)(np.arange(2))
    assert found["pixel_f1"] == (images[0]["pixel_f1"] + images[1]["pixel_f1"]) / 2
    assert found["centre_precision"] == 0.5 and found["centre_recall"] == pytest.approx(0.1)
    assert found["centre_f1"] == pytest.approx(2 / 12)
    assert not found.keys() & set(COUNTS)
    assert over_images(images)(np.array([0, 0]))["centre_f1"] == 1


def test_pixel_scores_in_numbers():
    scores = pixel_scores(squares((0, 0, 10)), squares((0, 5, 10)))
    assert scores["precision"] == scores["recall"] == scores["f1"] == 0.5
    assert scores["accuracy"] == 1 - 100 / 1600


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        overlaps(np.zeros((4, 4), int), np.zeros((4, 5), int))
    with pytest.raises(ValueError, match="float"):
        overlaps(np.zeros((4, 4)), np.zeros((4, 4), int))


def test_many_ids_take_the_sparse_path():
    rng = np.random.default_rng(0)
    truth = np.arange(1, 5001).reshape(50, 100)
    predicted = rng.permutation(truth.ravel()).reshape(50, 100)
    assert aji(overlaps(truth, predicted)) == 1
