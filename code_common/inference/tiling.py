"""Tiled inference: overlapping tiles in batches, blended without seams (D28)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from code_common.learning.network import mixed_precision, to_network
from code_common.learning.patches import starts


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


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles, and how the network computes them."""

    tile: int = 224  # side in pixels
    overlap: int = 80  # pixels that neighbours share
    batch_size: int = 8  # tiles per step
    views: int = 1  # turned and mirrored copies of each tile, 1 to 8, whose mean is taken
    precision: torch.dtype = torch.float32

    def key(self) -> list[str]:
        """What a result depends on; the batch size leaves it as it is."""
        return [str(v) for v in (self.tile, self.overlap, self.precision, self.views)]

    def one_view(self) -> "Tiling":
        """The same with one view of each tile."""
        return replace(self, views=1)


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

    def __init__(self, width: int, tiling: Tiling):
        self.tile, self.weight = tiling.tile, blend_weight(tiling.tile, tiling.overlap)
        self.first = 0  # image row of the first row that is held
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


@torch.inference_mode()
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
    left out, and the others have the same bits as without.
    """
    tile, overlap = tiling.tile, tiling.overlap
    rows, cols = (starts(n, tile, overlap) for n in shape)
    together = -(-tiling.batch_size // len(cols))  # rows of tiles that fill a batch
    groups = [rows[k : k + together] for k in range(0, len(rows), together)]
    ends = [group[0] for group in groups[1:]] + [shape[0]]  # rows before these are then finished
    blender = None
    for group, end in zip(groups, ends, strict=True):
        if group[-1] + tile <= first_row:
            continue
        if blender is None:
            blender = RowBlender(shape[1], tiling)
            blender.first = group[0]
        blender.reach(group[-1] + tile)
        corners = [(r, c) for r in group for c in cols if wanted is None or wanted(r, c)]
        tiles = _read_tiles(read, corners, tile)
        for first in range(0, len(corners), tiling.batch_size):
            batch = corners[first : first + tiling.batch_size]
            images = torch.from_numpy(np.stack([next(tiles) for _ in batch]))
            probs = predict_tiles(network, images, activation, tiling)
            for (row, col), prob in zip(batch, probs, strict=True):
                blender.add(row, col, prob)
        begin = blender.first
        done = blender.finish(end)
        skipped = max(0, first_row - begin)
        if skipped < done.shape[1]:
            yield begin + skipped, done[:, skipped:]


def _read_tiles(read: Read, corners: list[tuple[int, int]], tile: int) -> Iterator[np.ndarray]:
    """The tiles [T, T, 3] at some corners, which come row by row; each row is read in one piece."""
    for row, in_row in groupby(corners, key=lambda corner: corner[0]):
        columns = [col for _, col in in_row]
        left = columns[0]
        strip = read(row, left, tile, columns[-1] + tile - left)
        for col in columns:
            yield strip[:, col - left : col - left + tile]


def predict_tiles(
    network: nn.Module,
    tiles: Tensor,
    activation: Callable[[Tensor], Tensor],
    tiling: Tiling,
) -> np.ndarray:
    """Probabilities [B, C, T, T] float32 of tiles uint8 [B, T, T, 3]: the mean over their views."""
    device = next(network.parameters()).device
    x, views = to_network(tiles, device), []
    for view in range(tiling.views):
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
