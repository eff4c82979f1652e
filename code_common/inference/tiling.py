"""Tiled inference: overlapping tiles in batches, blended without seams (D28)."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from code_common.learning.hardware import thread_pool
from code_common.learning.network import mixed_precision, to_network
from code_common.learning.patches import starts
from code_common.threads import cores

T = TypeVar("T")


def blend_weight(size: int, overlap: int) -> np.ndarray:
    """Weight [size, size] of a tile's pixels: 1 inside, falling linearly over the overlap.

    The outer quarter of the overlap, where the network has seen least context, weighs next to
    nothing.
    """
    ramp = np.ones(size)
    if overlap:
        rise = np.clip((np.arange(overlap) + 0.5 - overlap / 4) / (overlap / 2), 1e-6, 1)
        ramp[:overlap], ramp[-overlap:] = rise, np.minimum(ramp[-overlap:], rise[::-1])
    return np.outer(ramp, ramp).astype(np.float32)


# Number of views -> which of the eight: by quarter turns, from 4 on mirrored. Of two, the second is
# mirrored at a horizontal line.
VIEWS = {1: (0,), 2: (0, 6), 4: (0, 1, 2, 3), 8: tuple(range(8))}


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles, and how the network computes them."""

    tile: int = 224  # side in pixels
    overlap: int = 80  # pixels that neighbours share
    batch_size: int = 8  # tiles per step
    views: tuple[int, ...] = (0,)  # of each tile, whose mean is taken: see VIEWS
    precision: torch.dtype = torch.float32

    def key(self) -> list[str]:
        """What a result depends on; the batch size leaves it as it is."""
        return [str(v) for v in (self.tile, self.overlap, self.precision, self.views)]

    def other_views(self) -> "Tiling":
        """The same with all views but the first, of which there are several."""
        return replace(self, views=self.views[1:])

    def one_view(self) -> "Tiling":
        """The same with one view of each tile."""
        return replace(self, views=self.views[:1])


# (first row, first column, rows, columns) -> that part of an image, uint8 RGB [rows, columns, 3]
Read = Callable[[int, int, int, int], np.ndarray]


def reader(image: np.ndarray) -> Read:
    """Reads parts of an image that is in memory."""

    def read(row: int, col: int, rows: int, cols: int) -> np.ndarray:
        return np.ascontiguousarray(image[row : row + rows, col : col + cols])

    return read


class RowBlender:
    """Tiles of an image of width `width`, blended from top to bottom.

    Memory holds the rows that some tile has reached and that are not finished.
    """

    def __init__(self, width: int, tiling: Tiling, first: int):
        self.tile, self.weight = tiling.tile, blend_weight(tiling.tile, tiling.overlap)
        self.first = first  # image row of the first row that is held
        self.total = np.zeros((0, 0, width), np.float32)  # [C, rows, width]; C once it is known
        self.norm = np.zeros((0, width), np.float32)

    def reach(self, end: int) -> None:
        """Hold the rows before `end`, with nothing in them yet."""
        rows = end - self.first - len(self.norm)
        self.norm = np.pad(self.norm, ((0, rows), (0, 0)))
        self.total = np.pad(self.total, ((0, 0), (0, rows), (0, 0)))

    def add(self, row: int, col: int, prob: np.ndarray) -> None:
        """Add a tile [C, T, T] whose first pixel is (row, col)."""
        if not len(self.total):
            self.total = np.zeros((len(prob), *self.norm.shape), np.float32)
        row -= self.first
        self.total[:, row : row + self.tile, col : col + self.tile] += prob * self.weight
        self.norm[row : row + self.tile, col : col + self.tile] += self.weight

    def finish(self, end: int) -> np.ndarray:
        """Give up the rows before `end`: [C, rows, width]; 0 where no tile was added."""
        rows = end - self.first
        total = self.total if len(self.total) else np.zeros((1, *self.norm.shape), np.float32)
        done = total[:, :rows] / np.maximum(self.norm[:rows], 1e-12)
        self.total, self.norm, self.first = self.total[:, rows:], self.norm[rows:], end
        return done


def predict_rows(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    activation: Callable[[Tensor], Tensor],
    tiling: Tiling,
    wanted: Callable[[int, int], bool] | None = None,
    first_row: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Probability maps of an image of any size, from top to bottom: (row, [C, rows, W] float32).

    Memory holds a few rows of tiles, whatever the image. The grid of tiles covers the whole image,
    at least one tile large, and the last tile of a row ends at its border, so no tile sees padding.
    `activation` maps logits to probabilities. Tiles of which `wanted(row, column)` is False are
    not computed; what no tile covers has probability 0. With `first_row` the rows before it are
    left out, and the others have the same bits as without. On a CPU each core computes tiles of
    its own: no core waits for another one, which may be busy with other programs.
    """
    tile = tiling.tile
    rows, cols = (starts(n, tile, tiling.overlap) for n in shape)
    ends = [*rows[1:], shape[0]]  # rows before these are finished with a row of tiles
    done = sum(row + tile <= first_row for row in rows)
    rows, ends = rows[done:], ends[done:]
    corners = [(r, c) for r in rows for c in cols if wanted is None or wanted(r, c)]
    tiles = _read_tiles(read, corners, tile)
    batches = (torch.from_numpy(np.stack(batch)) for batch in _in_groups(tiles, tiling.batch_size))

    def compute(images: Tensor) -> np.ndarray:
        return predict_tiles(network, images, activation, tiling)

    on_cpu = next(network.parameters()).device.type == "cpu"
    parts = in_order(compute, batches, cores() if on_cpu else 1)
    probs = zip(corners, chain.from_iterable(parts), strict=True)
    waiting = next(probs, None)
    blender = RowBlender(shape[1], tiling, first=rows[0] if rows else 0)
    for row, end in zip(rows, ends, strict=True):
        blender.reach(row + tile)
        while waiting and waiting[0][0] == row:
            blender.add(*waiting[0], waiting[1])
            waiting = next(probs, None)
        begin = blender.first
        part = blender.finish(end)
        skipped = max(0, first_row - begin)
        if skipped < part.shape[1]:
            yield begin + skipped, part[:, skipped:]


def _in_groups(values: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """The values in lists of `size`; the last may be shorter."""
    while group := list(islice(values, size)):
        yield group


def in_order(do: Callable[[Tensor], T], values: Iterator[Tensor], threads: int) -> Iterator[T]:
    """The results of `do`, in the order of its values. Several are computed at a time.

    Each thread has one core. Values are taken a few ahead, so `values` may be without end.
    """
    if threads == 1:
        yield from map(do, values)
        return
    ahead: deque[Future] = deque()
    with thread_pool(threads, 1) as pool:
        for value in values:
            ahead.append(pool.submit(do, value))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _read_tiles(read: Read, corners: list[tuple[int, int]], tile: int) -> Iterator[np.ndarray]:
    """The tiles [T, T, 3] at some corners, which come row by row; each row is read in one piece."""
    for row, in_row in groupby(corners, key=lambda corner: corner[0]):
        columns = [col for _, col in in_row]
        left = columns[0]
        strip = read(row, left, tile, columns[-1] + tile - left)
        for col in columns:
            yield strip[:, col - left : col - left + tile]


@torch.inference_mode()
def predict_tiles(
    network: nn.Module,
    tiles: Tensor,
    activation: Callable[[Tensor], Tensor],
    tiling: Tiling,
) -> np.ndarray:
    """Probabilities [B, C, T, T] float32 of tiles uint8 [B, T, T, 3]: the mean over their views."""
    device = next(network.parameters()).device
    x, views = to_network(tiles, device), []
    for view in tiling.views:
        with mixed_precision(tiling.precision, device):
            logits = network(_turned(x, view))
        views.append(_turned_back(activation(logits.float()), view))
    return torch.stack(views).mean(0).cpu().numpy()


def _turned(x: Tensor, view: int) -> Tensor:
    """One of the eight views [B, C, T, T] of square tiles: by quarter turns, from 4 on mirrored."""
    x = torch.rot90(x, view % 4, (2, 3))
    return x.flip(3) if view >= 4 else x


def _turned_back(x: Tensor, view: int) -> Tensor:
    """What `_turned` was given."""
    return torch.rot90(x.flip(3) if view >= 4 else x, -(view % 4), (2, 3))


def predict_image(
    network: nn.Module,
    image: np.ndarray,
    activation: Callable[[Tensor], Tensor],
    tiling: Tiling,
) -> np.ndarray:
    """Probability map [C, H, W] float32 of a uint8 RGB image [H, W, 3] of any size.

    Tiled as `predict_rows` does; an image smaller than a tile is mirrored up to it.
    """
    h, w = image.shape[:2]
    image = at_least(image, tiling.tile)
    parts = predict_rows(network, reader(image), image.shape[:2], activation, tiling)
    return np.concatenate([prob for _, prob in parts], axis=1)[:, :h, :w]


def probability(logits: Tensor) -> Tensor:
    """Probability [B, 1, H, W] of logits [B, C, H, W]: of the last of two classes, or the one."""
    return logits.sigmoid() if logits.shape[1] == 1 else torch.softmax(logits, 1)[:, 1:]


def predict_prob(network: nn.Module, image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Probability [H, W] in 0..1 of a nucleus or, by a detector, of being near its centre.

    image [H, W, 3] uint8.
    """
    return predict_image(network, image, probability, tiling)[0]


def at_least(image: np.ndarray, size: int) -> np.ndarray:
    """An image [H, W, 3], mirrored below and to the right where a side is shorter than `size`."""
    h, w = image.shape[:2]
    if min(h, w) >= size:
        return image
    padding = ((0, max(0, size - h)), (0, max(0, size - w)), (0, 0))
    return np.pad(image, padding, mode="symmetric")
