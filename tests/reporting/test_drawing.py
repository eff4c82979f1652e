"""Marks and outlines are drawn where they belong, in colours that everybody can tell apart."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from code_common.reporting.drawing import (
    BLUE,
    CYAN,
    GREEN,
    ORANGE,
    WHITE,
    YELLOW,
    mark,
    outline,
    tint,
)

# What is left of linear RGB to people without one kind of cone (Machado et al., TVCG 2009).
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
PAIRS = [(ORANGE, GREEN), (ORANGE, BLUE), (GREEN, BLUE), (YELLOW, CYAN)]  # stand side by side
PLAIN = 25  # CIELAB difference; 2 is just seen


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_colours_that_stand_side_by_side_are_told_apart(pair, vision):
    def seen(colour):
        linear = (np.array(colour) / 255) ** 2.2
        return rgb2lab(np.clip(VISION[vision] @ linear, 0, 1)[None, None] ** (1 / 2.2))

    first, second = map(seen, pair)
    assert np.linalg.norm(first - second) > PLAIN


@pytest.fixture
def grey():
    return np.full((40, 40, 3), 128, np.uint8)


@pytest.mark.parametrize("shape", ["circle", "cross", "square"])
def test_a_mark_is_around_its_place(grey, shape):
    marked = mark(grey, np.array([[10, 30]]), shape, BLUE, radius=5)
    rows, cols = np.nonzero((marked != grey).any(-1))
    centre = np.array([rows.min() + rows.max(), cols.min() + cols.max()]) / 2
    assert np.abs(centre - [10, 30]).max() <= 0.5  # lines are two pixels wide
    assert 10 <= np.ptp(rows) <= 14 and (grey == 128).all()


def test_an_outline_is_the_inner_boundary(grey):
    instances = np.zeros((40, 40), np.int32)
    instances[10:20, 10:20] = 1
    outlined = (outline(grey, instances, YELLOW) == YELLOW).all(-1)
    assert outlined.sum() == 4 * 9 and outlined[10, 10] and not outlined[9, 10]


def test_a_tint_mixes_a_colour_in(grey):
    mask = np.zeros((40, 40), bool)
    mask[0, 0] = True
    tinted = tint(grey, mask, WHITE, strength=0.5)
    assert tinted[0, 0].tolist() == [191] * 3 and (tinted[1:] == 128).all()
