"""The distance transform is exact and reproducible."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from code_common.arrays import distance_transform


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
def test_distances_are_roots_of_whole_numbers(h, w, zeros, seed):
    rng = np.random.default_rng(seed)
    # A view at an odd address: vector code may take another path.
    buffer = np.ones(h * w + 3, np.uint8)
    free = buffer[rng.integers(0, 4) :][: h * w].reshape(h, w)
    free[rng.integers(0, h, zeros), rng.integers(0, w, zeros)] = 0
    exact = ndimage.distance_transform_edt(free).astype(np.float32)
    assert np.array_equal(distance_transform(free), exact)
