"""Which points of an image are learnt, and which its detections are scored against."""

import numpy as np
import pytest

from code_common.arrays import points_from_instances
from code_common.files.data_set import ImageFiles
from code_common.files.writing import write_instances, write_png
from code_detection.dataset import all_points, true_points

SHAPE = (60, 60)


@pytest.fixture
def files(tmp_path):
    """An image of four nuclei, with its map and a point label that is still empty."""
    instances = np.zeros(SHAPE, np.int32)
    for label in range(4):
        instances[10 * label + 5 : 10 * label + 9, 20:25] = label + 1
    write_instances(tmp_path / "map.tif", instances)
    of_map = points_from_instances(instances)
    return ImageFiles("t", tmp_path / "t.png", tmp_path / "map.tif", tmp_path / "p.png"), of_map


def dots(path, points):
    label = np.zeros(SHAPE, np.uint8)
    label[tuple(points.T)] = 255
    write_png(path, label)


def test_points_of_a_part_are_learnt_but_all_nuclei_are_scored(files):
    image, of_map = files
    dots(image.points, of_map[:2] + 1)
    assert all_points(image, SHAPE).tolist() == (of_map[:2] + 1).tolist()
    assert true_points(image, SHAPE).tolist() == of_map.tolist()


@pytest.mark.parametrize("more", [0, 3])
def test_a_point_label_of_all_nuclei_is_taken_as_it_is(files, more):
    image, of_map = files
    marked = (of_map + 1).tolist() + [[2 + 3 * k, 50] for k in range(more)]
    dots(image.points, np.array(marked))
    assert sorted(true_points(image, SHAPE).tolist()) == sorted(marked)


def test_one_label_alone_is_taken(files):
    image, of_map = files
    dots(image.points, of_map[:2])
    alone = ImageFiles("t", image.image, None, image.points)
    assert true_points(alone, SHAPE).tolist() == of_map[:2].tolist()
    assert true_points(ImageFiles("t", image.image, image.instances), SHAPE).tolist() == (
        of_map.tolist()
    )
    assert true_points(ImageFiles("t", image.image), SHAPE) is None
