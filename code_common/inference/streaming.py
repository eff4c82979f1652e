"""Connected components of maps that do not fit into memory.

A map lies on the disk and is read in parts. Components are found block by block and joined over
the borders of the blocks. Each is then known by its bounding box and can be read whole. The result
does not depend on the size of the blocks.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from code_common.errors import InputError

BLOCK = 2048  # side in pixels of the blocks in which components are found
# A longer component is no cluster of nuclei, and it might cover the whole slide. It is cut along
# the borders of the blocks, whose grid begins at the image's corner.
LONGEST = 4096
HELD = 2**27  # bytes; a map that is not larger is held in memory

# (first row, first column, rows, columns) -> that part of a map, [rows, columns]
ReadPart = Callable[[int, int, int, int], np.ndarray]


class DiskMap:
    """A map [H, W] in a file of zeros. Only what is written takes room on the disk.

    A map of at most HELD bytes is held in memory. Its file has what was written when `synchronise`
    returns. Parts of a larger map are read and written like those of any file: one that was mapped
    into the memory would end the process without a word where the disk is full.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: type):
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = shape[0] * shape[1] * self.dtype.itemsize
        is_new = not path.is_file() or path.stat().st_size != size
        if is_new:
            with open(path, "wb") as file:
                file.truncate(size)
        self._held, self._unsaved = None, (shape[0], 0)  # the map; its rows that the file lacks
        if size <= HELD:
            self._held = np.zeros(shape, dtype) if is_new else self._load(0, 0, *shape, 1)

    def _place(self, row: int, col: int) -> int:
        """Where a pixel lies in the file."""
        return (row * self.shape[1] + col) * self.dtype.itemsize

    def read(self, row: int, col: int, rows: int, cols: int, step: int = 1) -> np.ndarray:
        """The part [rows, cols] from (row, col), cut off at the map's border.

        With `step` it is only every step-th row and column of the part.
        """
        if self._held is None:
            return self._load(row, col, rows, cols, step)
        return self._held[row : row + rows : step, col : col + cols : step].copy()

    def _load(self, row: int, col: int, rows: int, cols: int, step: int) -> np.ndarray:
        """`read` from the file."""
        lines = range(row, min(row + rows, self.shape[0]), step)
        part = np.zeros((len(lines), min(cols, self.shape[1] - col)), self.dtype)
        with open(self.path, "rb") as file:
            for k, line in zip(lines, part, strict=True):
                file.seek(self._place(k, col))
                if file.readinto(line) != line.nbytes:
                    raise InputError(f"{self.path}: was cut off; give the same command again")
        return part[:, ::step]

    def write(self, row: int, col: int, part: np.ndarray) -> None:
        """Write a part [rows, cols] at (row, col)."""
        if self._held is None:
            self._save(row, col, part)
            return
        rows, cols = part.shape
        self._held[row : row + rows, col : col + cols] = part
        self._unsaved = min(row, self._unsaved[0]), max(row + rows, self._unsaved[1])

    def _save(self, row: int, col: int, part: np.ndarray) -> None:
        """`write` into the file."""
        try:
            with open(self.path, "r+b") as file:
                for k, line in enumerate(np.ascontiguousarray(part, self.dtype), row):
                    file.seek(self._place(k, col))
                    file.write(line)
        except OSError as error:
            error.filename = str(self.path)
            raise

    def synchronise(self) -> None:
        """Return when what was written is on the disk."""
        if self._held is not None:
            first, end = self._unsaved
            self._save(first, 0, self._held[first:end])
            self._unsaved = self.shape[0], 0
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())


class Components(NamedTuple):
    """N connected components. `find_components` sorts them by their first pixels, row by row."""

    boxes: np.ndarray  # [N, 4] int64: first row and column, last row and column + 1
    areas: np.ndarray  # [N] int64 in pixels
    firsts: np.ndarray  # [N, 2] int64: row and column of the first pixel

    def at_least(self, area: int) -> "Components":
        """The components of at least `area` pixels."""
        return Components(*(values[self.areas >= area] for values in self))


def find_components(
    read_mask: ReadPart,
    shape: tuple[int, int],
    block: int = BLOCK,
    longest: int = LONGEST,
) -> Components:
    """The 8-connected components of a mask [H, W] of any size, which `read_mask` reads as bool.

    A component with a side over `longest` pixels stays in the pieces that the blocks cut it into.
    """
    pieces, pairs = _find_pieces(read_mask, shape, block)
    width = shape[1]
    group = _groups(len(pieces.areas), pairs)
    joined = _joined(pieces, group, width)
    too_long = (joined.boxes[:, 2:] - joined.boxes[:, :2] > longest).any(1)
    if too_long.any():
        pairs = pairs[~too_long[group[pairs[:, 0]]]]
        joined = _joined(pieces, _groups(len(pieces.areas), pairs), width)
    order = np.argsort(joined.firsts @ (width, 1))
    return Components(*(values[order] for values in joined))


def _find_pieces(
    read_mask: ReadPart, shape: tuple[int, int], block: int
) -> tuple[Components, np.ndarray]:
    """The components of each block, and the pairs [M, 2] of them that touch over a border.

    A pair holds the numbers of two pieces, counted from 0 over all blocks.
    """
    height, width = shape
    pieces, pairs, count = [], [], 0
    # Ids of pieces along the last row of the blocks above. Ids are from 1; 0 is background. The
    # line has one pixel more at either end, as every line that `_touching` compares with.
    above = np.zeros(width + 2, np.int64)
    for row in range(0, height, block):
        last_row = np.zeros(width + 2, np.int64)
        left = np.zeros(block + 2, np.int64)  # ids along the last column of the block to the left
        for col in range(0, width, block):
            mask = read_mask(row, col, min(block, height - row), min(block, width - col))
            in_block, labels = _components_of_block(mask, row, col)
            ids = np.append(0, np.arange(len(in_block.areas)) + count + 1)
            pieces.append(in_block)
            count += len(in_block.areas)
            end = col + labels.shape[1]
            pairs.append(_touching(ids[labels[0]], above[col : end + 2]))
            pairs.append(_touching(ids[labels[:, 0]], left))
            left = np.pad(ids[labels[:, -1]], 1)
            last_row[col + 1 : end + 1] = ids[labels[-1]]
        above = last_row
    columns = zip(*pieces, strict=True)
    return Components(*(np.concatenate(values) for values in columns)), np.concatenate(pairs) - 1


def _components_of_block(mask: np.ndarray, row: int, col: int) -> tuple[Components, np.ndarray]:
    """The components of one block [h, w] that begins at (row, col), and their labels [h, w]."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    left, top, width, height, area = stats[1:].astype(np.int64).T
    corners = np.stack([top, left], 1) + (row, col)
    boxes = np.hstack([corners, corners + np.stack([height, width], 1)])
    # Pixels are visited from the last to the first. The value written last stays: the first pixel.
    pixels = np.flatnonzero(labels)[::-1]
    first = np.zeros(count, np.int64)
    first[labels.ravel()[pixels]] = pixels
    firsts = np.stack(np.divmod(first[1:], labels.shape[1]), 1) + (row, col)
    return Components(boxes, area, firsts), labels


def _touching(line: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Pairs [N, 2] of ids that touch, across or diagonally, in two neighbouring lines of pixels.

    line [n]; beside [n + 2 or more] begins one pixel before it. 0 is background.
    """
    pairs = []
    for shift in range(3):
        neighbour = beside[shift : shift + len(line)]
        both = (line > 0) & (neighbour > 0)
        pairs.append(np.unique(np.stack([line[both], neighbour[both]], 1), axis=0))
    return np.concatenate(pairs)


def _groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """Number [count] of the group of each piece. Pairs [M, 2] of pieces are in one group."""
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _joined(pieces: Components, group: np.ndarray, width: int) -> Components:
    """The pieces of each group as one component. width: of the map in pixels."""
    count, highest = group.max(initial=-1) + 1, np.iinfo(np.int64).max
    low, high = np.full((count, 2), highest), np.zeros((count, 2), np.int64)
    first = np.full(count, highest)
    np.minimum.at(low, group, pieces.boxes[:, :2])
    np.maximum.at(high, group, pieces.boxes[:, 2:])
    np.minimum.at(first, group, pieces.firsts @ (width, 1))
    areas = np.zeros(count, np.int64)
    np.add.at(areas, group, pieces.areas)
    return Components(np.hstack([low, high]), areas, np.stack(np.divmod(first, width), 1))


def component_masks(
    components: Components, read_mask: ReadPart
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Each component as (first row, first column, mask [h, w] bool of its bounding box)."""
    for box, first in zip(components.boxes.tolist(), components.firsts.tolist(), strict=True):
        row, col, end_row, end_col = box
        mask = read_mask(row, col, end_row - row, end_col - col)
        labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
        yield row, col, labels == labels[first[0] - row, first[1] - col]
