"""Components found block by block are those of the whole map, whatever the blocks."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_common.inference.streaming import DiskMap, component_masks, find_components


def reader(mask):
    def read(row, col, rows, cols):
        return mask[row : row + rows, col : col + cols]

    return read


def whole(mask):
    """The components of a mask in memory, by first pixel: boxes, areas, pixels."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    out = []
    for k in range(1, count):
        pixels = np.argwhere(labels == k)
        box = (*pixels.min(0), *(pixels.max(0) + 1))
        out.append((tuple(pixels[0]), tuple(int(v) for v in box), len(pixels), labels == k))
    return sorted(out, key=lambda c: c[0])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.7), st.integers(1, 45),
    st.integers(0, 1000),
)  # fmt: skip
def test_blocks_of_any_size_give_the_components_of_the_whole(h, w, density, block, seed):
    mask = np.random.default_rng(seed).random((h, w)) < density
    found = find_components(reader(mask), (h, w), block)
    expected = whole(mask)
    assert len(found.areas) == len(expected)
    masks = component_masks(found, reader(mask))
    for box, area, first, (row, col, own), true in zip(*found, masks, expected, strict=True):
        assert tuple(first) == true[0] and tuple(box) == true[1] and area == true[2]
        assert np.array_equal(own, true[3][row : box[2], col : box[3]])


def test_a_spiral_over_many_blocks_is_one():
    mask = np.zeros((64, 64), bool)
    for k in range(0, 32, 4):
        mask[k, k : 64 - k] = mask[63 - k, k : 64 - k] = True
        mask[k : 64 - k, 63 - k] = mask[k + 4 : 64 - k, k] = True
        mask[k + 4, k : k + 5] = k + 4 < 32
    whole_count = len(whole(mask))
    assert [len(find_components(reader(mask), mask.shape, b).areas) for b in (3, 8, 64)] == [
        whole_count
    ] * 3


def test_what_is_too_long_is_cut_along_the_grid_and_the_rest_is_not():
    mask = np.zeros((40, 100), bool)
    mask[5, :] = True  # as long as the image
    mask[18:23, 45:55] = True  # over the corner of four blocks
    found = find_components(reader(mask), mask.shape, block=20, longest=30)
    assert found.areas.tolist() == [20] * 5 + [50]
    assert found.boxes[:5, 1].tolist() == [0, 20, 40, 60, 80]
    pieces = list(component_masks(found, reader(mask)))
    assert [m.sum() for *_, m in pieces] == found.areas.tolist()


def test_nothing_and_everything():
    empty = find_components(reader(np.zeros((30, 30), bool)), (30, 30), 8)
    assert len(empty.areas) == 0
    full = find_components(reader(np.ones((30, 30), bool)), (30, 30), 8)
    assert full.areas.tolist() == [900] and full.boxes.tolist() == [[0, 0, 30, 30]]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_a_map_on_disk(tmp_path, dtype):
    disk = DiskMap(tmp_path / "a" / "map", (1000, 3000), dtype)
    assert (disk.path.stat().st_blocks * 512) < 100_000  # nothing is written yet
    part = np.arange(12, dtype=dtype).reshape(3, 4)
    disk.write(7, 2990, part)
    assert np.array_equal(DiskMap(disk.path, disk.shape, dtype).read(7, 2990, 3, 4), part)
    assert disk.read(990, 2998, 50, 50).shape == (10, 2)
    assert disk.read(0, 0, 1000, 3000).sum() == part.sum()
