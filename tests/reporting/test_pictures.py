"""The pictures of both stages show what the code does, and their scripts make them again."""

import numpy as np
import pytest
from conftest import digest, link_run

from code_common.files.reading import read_json
from code_common.files.run_folder import options_path, pictures_folder
from code_common.reporting.album import middle
from code_common.reporting.drawing import BLUE, CYAN, ORANGE, WHITE, YELLOW
from code_detection.labels import extended_gaussian_mask, weight_map
from code_detection.pictures import grey, in_window, weight_picture
from code_seg.metrics import overlaps, unmatched
from code_seg.overlays import draw_errors, middles

R1, R2, SIGMA, PEAK_WEIGHT = 6, 12, 1.5, 10


def test_points_of_a_window_are_in_its_coordinates():
    points = np.array([[0, 5], [9, 24], [3, 25], [3, 4]])
    assert in_window(points, middle((10, 30), 20)).tolist() == [[0, 0], [9, 19]]


def test_grey_is_white_at_0_and_black_at_1():
    assert grey(np.array([[0.0, 1.0]])).tolist() == [[[255] * 3, [0] * 3]]


def test_the_weight_picture_tells_peak_ring_and_unknown_apart():
    image = np.full((64, 64, 3), 100, np.uint8)
    target, known = extended_gaussian_mask(np.array([[32, 32]]), (64, 64), R1, R2, SIGMA)
    nothing, everything = np.zeros_like(known), np.ones_like(known)
    weight = weight_map(target, known, nothing, everything, PEAK_WEIGHT)
    picture = weight_picture(image, target, weight).astype(int)
    peak, ring, unknown = picture[32, 32], picture[32, 42], picture[2, 2]
    assert peak.argmax() == 1 and ring.argmax() == 0  # green, orange
    assert (unknown == unknown[0]).all() and unknown[0] > 0.75 * WHITE[0]


def test_what_weighs_little_is_drawn_as_unknown():
    """--unknown-weight: it is no background that a round has found."""
    image, target = np.full((1, 2, 3), 100, np.uint8), np.zeros((1, 2), np.float32)
    little, none = (np.array([[1, weight]], np.float32) for weight in (0.1, 0))
    assert np.array_equal(*(weight_picture(image, target, weight) for weight in (little, none)))


def test_missed_and_wrong_nuclei_are_marked():
    """One nucleus is right, one at the left is missed, one at the right is wrong."""
    truth, predicted = np.zeros((60, 60), np.int32), np.zeros((60, 60), np.int32)
    truth[5:15, 5:15], truth[30:40, 5:15] = 3, 7
    predicted[5:15, 6:16], predicted[30:40, 40:50] = 2, 4
    assert [ids.tolist() for ids in unmatched(overlaps(truth, predicted))] == [[1], [1]]
    assert middles(truth).tolist() == [[9.5, 9.5], [34.5, 9.5]]
    picture = draw_errors(np.full((60, 60, 3), 128, np.uint8), predicted, truth)

    def colours_in(rows, cols):
        window = picture[rows, cols].reshape(-1, 3)
        return {tuple(colour) for colour in window.tolist()} & {BLUE, CYAN, ORANGE, YELLOW}

    right = colours_in(slice(0, 20), slice(0, 20))
    missed = colours_in(slice(28, 42), slice(0, 20))
    wrong = colours_in(slice(28, 42), slice(38, 52))
    assert right <= {CYAN, YELLOW}
    assert missed == {BLUE, CYAN}
    assert wrong == {ORANGE, YELLOW}


@pytest.mark.parametrize(
    ("stage", "script", "number"),
    [("segmentation", "code_seg/pictures.py", 4), ("detection", "code_detection/pictures.py", 5)],
)
def test_pictures_alone_draw_the_same(experiment, run_script, tmp_path, stage, script, number):
    """The script is what main.py does; it touches nothing else."""
    run = link_run(experiment, tmp_path)
    pictures = pictures_folder(run / stage)
    before = digest(pictures)
    for path in pictures.glob("*.*"):
        path.unlink()
    saved = read_json(options_path(run / stage))["options"]
    names = ["dataset", "ratio", "input_size", "patch_size"]
    if stage == "detection":
        names += ["r1", "r2", "sigma", "rounds"]
    arguments = [f"--{name.replace('_', '-')}={saved[name]}" for name in names]
    arguments += ["--data-root", tmp_path / "data", "--root-save-dir", tmp_path / "out"]
    assert f"{number} figures in" in run_script(script, *arguments).stdout
    assert digest(pictures) == before
