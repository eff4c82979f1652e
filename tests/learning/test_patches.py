"""Windows cover every pixel, whatever the size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_common.learning.patches import starts, windows


def test_the_papers_grid():
    assert starts(1000, 250) == [0, 250, 500, 750]
    assert len(windows((1000, 1000), 250)) == 16
    assert len(windows((1000, 1000), 224, 80)) == 49


@given(st.integers(1, 700), st.integers(1, 300), st.data())
def test_every_pixel_is_covered_and_nothing_beyond(length, size, data):
    """D24: no gap, no lost row, no negative start, at 249, 250, 900, 1200, ... pixels."""
    overlap = data.draw(st.integers(0, size - 1))
    first = starts(length, size, overlap)
    covered = np.zeros(max(length, size), int)
    for start in first:
        covered[start : start + size] += 1
    assert first[0] == 0 and (covered[:length] > 0).all()
    if length > size:
        assert first[-1] + size == length
        assert (np.diff(first) <= size - overlap).all() and (np.diff(first) > 0).all()


def test_an_overlap_of_a_whole_window_is_an_error():
    with pytest.raises(ValueError, match="overlap"):
        starts(10, 5, 5)
