"""A nucleus for each point that a user gives."""

import numpy as np
import pytest

from code_common.inference.streaming import DiskMap
from code_seg.given_points import NOTHING, SHARED, SMALL, PointNuclei, nearest

SHAPE = (80, 90)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def disk(row, col, radius):
    return np.hypot(Y - row, X - col) <= radius


class Case:
    """Disks that are nuclei already, and a probability map around them."""

    def __init__(self, folder, disks, prob=None):
        self.labels = DiskMap(folder / "labels.u32", SHAPE, np.uint32)
        self.masks = [disk(*values) for values in disks]
        self.prob = np.zeros(SHAPE) if prob is None else prob
        for mask in self.masks:
            self.prob[mask] = 0.9

    def nuclei(self):
        """In parts, as a segmenter gives them: the box of each, with the ids over all of them."""
        whole = np.zeros(SHAPE, np.int64)
        for k, mask in enumerate(self.masks, 1):
            whole[mask] = k
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
            self.labels.write(rows[0], cols[0], whole[box])
            yield rows[0], cols[0], np.where(mask[box], k, 0)

    def given(self, *points, min_area=10):
        def read_prob(row, col, rows, cols):
            return self.prob[row : row + rows, col : col + cols]

        points = np.array(points).reshape(-1, 2)
        return PointNuclei(self.nuclei(), self.labels, read_prob, points, min_area)


def drawn(found, only_points=False):
    """The nuclei as one map, 1, 2, ...; no two may overlap."""
    whole = np.zeros(SHAPE, int)
    for k, (row, col, part) in enumerate(found.parts(only_points), 1):
        window = whole[row : row + part.shape[0], col : col + part.shape[1]]
        assert not window[part > 0].any()
        window[part > 0] = k
    return whole


def test_a_point_in_a_nucleus_has_it_and_changes_nothing(tmp_path):
    case = Case(tmp_path, [(20, 20, 8), (20, 60, 8)])
    found = case.given((22, 18), (19, 62))
    assert found.ids.tolist() == [1, 2] and found.notes == ["", ""]
    assert np.array_equal(drawn(found), case.masks[0] + 2 * case.masks[1])


def test_nuclei_without_a_point_stay_unless_only_those_of_points_are_wanted(tmp_path):
    case = Case(tmp_path, [(20, 20, 8), (20, 60, 8), (60, 20, 8)])
    found = case.given((20, 60))
    assert drawn(found).max() == 3
    assert np.array_equal(drawn(found, only_points=True) > 0, case.masks[1])


def test_several_points_in_one_nucleus_share_it(tmp_path):
    case = Case(tmp_path, [(40, 40, 15)])
    points = np.array([(40, 32), (40, 48), (30, 40)])
    found = case.given(*points)
    whole = drawn(found)
    assert np.array_equal(whole > 0, case.masks[0])
    assert sorted(found.ids) == [1, 2, 3]
    assert sorted(whole[points[:, 0], points[:, 1]]) == [1, 2, 3]


def test_a_share_that_is_too_small_is_not_cut(tmp_path):
    case = Case(tmp_path, [(40, 40, 10)])
    found = case.given((40, 40), (40, 42), (40, 44), min_area=100)
    assert np.count_nonzero(found.ids) == 2 and found.notes.count(SHARED) == 1
    assert np.array_equal(drawn(found) > 0, case.masks[0])


def test_a_point_beside_a_nucleus_without_a_point_has_that_one(tmp_path):
    case = Case(tmp_path, [(20, 20, 8), (20, 60, 8)])
    found = case.given((20, 30), (20, 60), (20, 70))
    assert found.ids.tolist() == [1, 2, 0]  # the second one has a point of its own
    assert found.notes == ["beside the point", "", NOTHING]


def test_a_point_where_the_network_is_unsure_grows_a_nucleus(tmp_path):
    prob = 0.4 * disk(50, 60, 9)
    case = Case(tmp_path, [(20, 20, 8)], prob)
    found = case.given((20, 20), (51, 58))
    assert found.ids.tolist() == [1, 2] and found.notes[1].startswith("grown, probability 0.4")
    grown, wanted = drawn(found) == 2, disk(50, 60, 9)
    assert (grown & wanted).sum() > 0.9 * (grown | wanted).sum()


def test_a_single_pixel_of_noise_grows_nothing(tmp_path):
    found = Case(tmp_path, [(20, 20, 8)], 0.9 * disk(60, 60, 0)).given((60, 60))
    assert found.notes == [NOTHING]


def test_what_grows_ends_near_its_point_and_before_other_nuclei(tmp_path):
    case = Case(tmp_path, [(20, 20, 8)], np.full(SHAPE, 0.3))
    found = case.given((20, 33))
    grown = drawn(found) == 2
    assert grown[20, 33] and not (grown & case.masks[0]).any()
    assert not (grown & ~disk(20, 33, 1.5 * 8 + 1)).any()


@pytest.mark.parametrize(("prob", "note"), [(0.05, NOTHING), (0.4, SMALL)])
def test_a_point_without_a_nucleus_is_listed_with_the_reason(tmp_path, prob, note):
    case = Case(tmp_path, [(20, 20, 8)], prob * disk(60, 60, 5))
    found = case.given((60, 60), min_area=120)
    assert found.ids.tolist() == [0] and found.notes == [note]
    assert drawn(found).max() == 1


def test_points_on_the_border_and_without_any_nucleus(tmp_path):
    found = Case(tmp_path, [], 0.4 * (disk(0, 0, 9) | disk(79, 89, 9))).given((0, 0), (79, 89))
    assert found.ids.tolist() == [1, 2] and drawn(found).max() == 2
    assert Case(tmp_path / "empty", []).given().ids.tolist() == []


def test_nearest_leaves_out_the_point_with_the_smallest_part():
    mask = np.ones((10, 30), bool)
    parts = nearest(mask, np.array([(5, 2), (5, 27), (5, 29)]), min_area=40)
    assert np.bincount(parts.ravel()).tolist() == [0, 150, 150]
