"""Objects of images that do not fit into memory: whole, counted once, the same for any cut.

A map lies on disk and is read where it is looked at. Components are found block by block and
joined over the blocks' borders, so that each is known by its box before it is taken out whole.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

BLOCK = 2048  # side in pixels of the blocks that components are found in
# A component that is longer is no nucleus and no cluster of nuclei, and might be the whole slide:
# it is cut along the blocks' borders, whose grid belongs to the image.
LONGEST = 4096


class DiskMap:
    """A map [H, W] in a file of zeros, of which only what is written takes room on the disk.

    Each access maps the file anew, so that memory holds no more than what is being looked at.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: type):
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = shape[0] * shape[1] * self.dtype.itemsize
        if not path.is_file() or path.stat().st_size != size:
            with open(path, "wb") as file:
                file.truncate(size)

    def read(self, row: int, col: int, rows: int, cols: int, step: int = 1) -> np.ndarray:
        """A copy of the part [rows, cols] from (row, col); what lies outside is left out.

        With `step` only every step-th row and column of it.
        """
        whole = np.memmap(self.path, self.dtype, "r", shape=self.shape)
        return np.array(whole[row : row + rows : step, col : col + cols : step])

    def write(self, row: int, col: int, part: np.ndarray) -> None:
        """Put a part at (row, col)."""
        whole = np.memmap(self.path, self.dtype, "r+", shape=self.shape)
        whole[row : row + part.shape[0], col : col + part.shape[1]] = part
        whole.flush()


class Components(NamedTuple):
    """Connected components, in the order of their first pixels (row by row)."""

    boxes: np.ndarray  # [N, 4] int64: first row and column, last row and column + 1
    areas: np.ndarray  # [N] int64 in pixels
    firsts: np.ndarray  # [N, 2] int64: row and column of the first pixel

    def at_least(self, area: int) -> "Components":
        """Those of at least `area` pixels."""
        return Components(*(values[self.areas >= area] for values in self))


def find_components(
    read_mask: Callable[[int, int, int, int], np.ndarray],
    shape: tuple[int, int],
    block: int = BLOCK,
    longest: int = LONGEST,
) -> Components:
    """The 8-connected components of a mask of any size.

    `read_mask(row, col, rows, cols)` gives a part of it as bool. A component longer than `longest`
    stays in the pieces that the blocks cut it into.
    """
    h, w = shape
    boxes, areas, firsts, links = [], [], [], []
    above = np.zeros(w + 2, np.int64)  # ids along the last row of the blocks above; 0: none
    count = 0
    for row in range(0, h, block):
        below = np.zeros(w + 2, np.int64)
        left = None  # ids along the last column of the block to the left
        for col in range(0, w, block):
            mask = read_mask(row, col, min(block, h - row), min(block, w - col))
            n, labels, stats, _ = cv2.connectedComponentsWithStats(
                mask.astype(np.uint8), connectivity=8
            )
            corner = stats[1:, [1, 0]].astype(np.int64) + (row, col)  # top, left
            boxes.append(np.hstack([corner, corner + stats[1:, [3, 2]]]))
            areas.append(stats[1:, 4].astype(np.int64))
            flat = labels.ravel()
            first = np.zeros(n, np.int64)
            first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # the last to be put stays
            firsts.append(np.stack(np.divmod(first[1:], labels.shape[1]), 1) + (row, col))
            ids = np.where(labels, labels.astype(np.int64) + count, 0)
            count += n - 1
            top = ids[0]
            for shift in (0, 1, 2):  # `above` begins one column early
                links.append(_touching(top, above[col + shift : col + shift + len(top)]))
            if left is not None:
                for a, b in ((slice(None), slice(None)), (slice(1, None), slice(-1)),
                             (slice(-1), slice(1, None))):  # fmt: skip
                    links.append(_touching(ids[a, 0], left[b]))
            left = ids[:, -1]
            below[col + 1 : col + 1 + ids.shape[1]] = ids[-1]
        above = below
    parts = Components(*(np.concatenate(v) for v in (boxes, areas, firsts)))
    pairs = np.concatenate(links) - 1
    group = _groups(len(parts.areas), pairs)
    joined = _joined(parts, group, w)
    too_long = (joined.boxes[:, 2:] - joined.boxes[:, :2] > longest).any(1)
    if too_long.any():
        pairs = pairs[~too_long[group[pairs[:, 0]]]]
        joined = _joined(parts, _groups(len(parts.areas), pairs), w)
    order = np.argsort(joined.firsts @ (w, 1))
    return Components(*(values[order] for values in joined))


def _touching(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs [N, 2] of the ids that lie side by side."""
    both = (a > 0) & (b > 0)
    return np.unique(np.stack([a[both], b[both]], 1), axis=0)


def _groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """Number [count] of the group that each piece belongs to, joined by pairs [M, 2] of pieces."""
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _joined(parts: Components, group: np.ndarray, width: int) -> Components:
    """The pieces of each group as one component."""
    count, far = group.max(initial=-1) + 1, np.iinfo(np.int64).max
    low, high = np.full((count, 2), far), np.zeros((count, 2), np.int64)
    first = np.full(count, far)
    np.minimum.at(low, group, parts.boxes[:, :2])
    np.maximum.at(high, group, parts.boxes[:, 2:])
    np.minimum.at(first, group, parts.firsts @ (width, 1))
    areas = np.zeros(count, np.int64)
    np.add.at(areas, group, parts.areas)
    return Components(np.hstack([low, high]), areas, np.stack(np.divmod(first, width), 1))


def component_masks(
    components: Components, read_mask: Callable[[int, int, int, int], np.ndarray]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Each component taken out whole: (first row, first column, mask [h, w] bool of its box)."""
    for box, first in zip(components.boxes.tolist(), components.firsts.tolist(), strict=True):
        row, col, end_row, end_col = box
        mask = read_mask(row, col, end_row - row, end_col - col)
        labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
        yield row, col, labels == labels[first[0] - row, first[1] - col]
