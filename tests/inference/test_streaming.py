"""Components found block by block are those of the whole map, whatever the blocks."""

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_common.errors import InputError
from code_common.inference import streaming
from code_common.inference.streaming import DiskMap, component_masks, find_components
from code_common.inference.tiling import reader


def components_of_whole(mask):
    """The components of a mask in memory, by first pixel: that pixel, box, area, mask [H, W]."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    out = []
    for k in range(1, count):
        pixels = np.argwhere(labels == k)
        box = [*pixels.min(0).tolist(), *(pixels.max(0) + 1).tolist()]
        out.append((pixels[0].tolist(), box, len(pixels), labels == k))
    return sorted(out, key=lambda component: component[0])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    density=st.floats(0.05, 0.7),
    block=st.integers(1, 45),
    seed=st.integers(0, 1000),
)
def test_blocks_of_any_size_give_the_components_of_the_whole(rows, cols, density, block, seed):
    mask = np.random.default_rng(seed).random((rows, cols)) < density
    components = find_components(reader(mask), mask.shape, block)
    expected = components_of_whole(mask)
    assert components.firsts.tolist() == [first for first, *_ in expected]
    assert components.boxes.tolist() == [box for _, box, *_ in expected]
    assert components.areas.tolist() == [area for *_, area, _ in expected]
    taken_out = component_masks(components, reader(mask))
    for (row, col, inner), (*_, whole) in zip(taken_out, expected, strict=True):
        h, w = inner.shape
        assert np.array_equal(inner, whole[row : row + h, col : col + w])
        assert inner.sum() == whole.sum()


def test_a_spiral_over_many_blocks_is_one():
    mask = np.zeros((64, 64), bool)
    for k in range(0, 32, 4):
        mask[k, k : 64 - k] = mask[63 - k, k : 64 - k] = True
        mask[k : 64 - k, 63 - k] = mask[k + 4 : 64 - k, k] = True
        mask[k + 4, k : k + 5] = k + 4 < 32
    count = len(components_of_whole(mask))
    for block in (3, 8, 64):
        assert len(find_components(reader(mask), mask.shape, block).areas) == count


def test_what_is_too_long_is_cut_along_the_grid_and_the_rest_is_not():
    mask = np.zeros((40, 100), bool)
    mask[5, :] = True  # as long as the image
    mask[18:23, 45:55] = True  # over the corner of four blocks
    components = find_components(reader(mask), mask.shape, block=20, longest=30)
    assert components.areas.tolist() == [20] * 5 + [50]
    assert components.boxes[:5, 1].tolist() == [0, 20, 40, 60, 80]
    pieces = list(component_masks(components, reader(mask)))
    assert [piece.sum() for *_, piece in pieces] == components.areas.tolist()


def test_nothing_and_everything():
    empty = find_components(reader(np.zeros((30, 30), bool)), (30, 30), block=8)
    assert len(empty.areas) == 0
    full = find_components(reader(np.ones((30, 30), bool)), (30, 30), block=8)
    assert full.areas.tolist() == [900] and full.boxes.tolist() == [[0, 0, 30, 30]]


@pytest.fixture(params=["held in memory", "in its file"])
def held(request, monkeypatch):
    """Whether a map is held in memory: each test sees both kinds."""
    if request.param == "in its file":
        monkeypatch.setattr(streaming, "HELD", 0)
    return request.param == "held in memory"


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_a_map_on_disk(tmp_path, held, dtype):
    disk = DiskMap(tmp_path / "a" / "map", (1000, 3000), dtype)
    assert (disk.path.stat().st_blocks * 512) < 100_000  # nothing is written yet
    part = np.arange(12, dtype=dtype).reshape(3, 4)
    disk.write(7, 2990, part)
    disk.synchronise()
    assert (disk.path.stat().st_blocks * 512) < 100_000  # a few rows are
    again = DiskMap(disk.path, disk.shape, dtype)
    assert np.array_equal(again.read(7, 2990, 3, 4), part)
    assert disk.read(990, 2998, 50, 50).shape == (10, 2)  # what lies outside is left out
    assert disk.read(0, 0, 1000, 3000).sum() == part.sum()


def test_a_part_that_was_read_is_no_view_of_the_map(tmp_path, held):
    disk = DiskMap(tmp_path / "map", (5, 5), np.uint16)
    disk.read(0, 0, 5, 5)[:] = 9
    assert not disk.read(0, 0, 5, 5).any()


def test_only_changed_rows_are_written_again(tmp_path):
    disk = DiskMap(tmp_path / "map", (6, 4), np.uint16)
    for row in (0, 3):
        disk.write(row, 0, np.ones((2, 4), np.uint16))
        disk.synchronise()
        assert np.fromfile(disk.path, np.uint16).sum() == 8
        disk.path.write_bytes(bytes(disk.path.stat().st_size))


def test_parts_of_a_map_by_steps(tmp_path, held):
    whole = np.random.default_rng(0).integers(0, 9, (50, 70)).astype(np.uint16)
    disk = DiskMap(tmp_path / "map", whole.shape, np.uint16)
    disk.write(0, 0, whole[:, :40].T.copy().T)  # in another order in the memory
    disk.write(0, 40, whole[:, 40:])
    for row, col, rows, cols, step in [(0, 0, 50, 70, 1), (3, 5, 20, 30, 4), (45, 60, 90, 90, 3)]:
        part = disk.read(row, col, rows, cols, step)
        assert np.array_equal(part, whole[row : row + rows : step, col : col + cols : step])


def test_a_full_disk_is_an_error_of_the_map(tmp_path, held):
    """Not the end of the process, as where a mapped file finds no room."""
    disk = DiskMap(tmp_path / "map", (5, 5), np.uint16)
    disk.path = Path("/dev/full")
    with pytest.raises(OSError) as full:
        disk.write(0, 0, np.ones((5, 5), np.uint16))
        disk.synchronise()
    assert full.value.errno == errno.ENOSPC and full.value.filename == "/dev/full"


def test_a_map_that_was_cut_off_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "HELD", 0)
    disk = DiskMap(tmp_path / "map", (5, 5), np.uint16)
    os.truncate(disk.path, 20)
    with pytest.raises(InputError, match="map: was cut off"):
        disk.read(0, 0, 5, 5)
