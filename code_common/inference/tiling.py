"""Tiled inference: overlapping tiles in batches, blended without seams (D28)."""

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from code_common.learning.network import to_network
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


def cutting(tiling: dict) -> list[str]:
    """The part of the arguments of `predict_image` that a result depends on."""
    return [str(tiling[k]) for k in ("tile", "overlap", "precision", "views")]


# (first row, first column, rows, columns) -> that part of an image, uint8 RGB [rows, columns, 3]
Read = Callable[[int, int, int, int], np.ndarray]


def reader(image: np.ndarray) -> Read:
    """Reads parts of an image that is in memory."""

    def read(row: int, col: int, rows: int, cols: int) -> np.ndarray:
        return np.ascontiguousarray(image[row : row + rows, col : col + cols])

    return read


@torch.inference_mode()
def predict_rows(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    activation: Callable[[Tensor], Tensor],
    tile: int = 224,
    overlap: int = 80,
    batch_size: int = 8,
    precision: torch.dtype = torch.float32,
    views: int = 1,
    wanted: Callable[[int, int], bool] | None = None,
    first_row: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Probability maps of an image of any size, from top to bottom: (row, [C, rows, W] float32).

    Memory holds a few rows of tiles, whatever the image. The grid of tiles covers the whole image,
    at least one tile large, and the last tile of a row ends at its border, so no tile sees padding.
    `activation` maps logits to probabilities, which are the mean of those of `views` turned and
    mirrored copies of each tile. Tiles of which `wanted(row, column)` is False are
    not computed; what no tile covers has probability 0. With `first_row` the rows before it are
    left out, and the others have the same bits as without.
    """
    device = next(network.parameters()).device
    rows, cols = (starts(n, tile, overlap) for n in shape)
    weight = blend_weight(tile, overlap)
    together = -(-batch_size // len(cols))  # rows of tiles that fill a batch
    total, norm = np.zeros((0, 0, shape[1]), np.float32), np.zeros((0, shape[1]), np.float32)
    base = None  # image row of the first row of `total`
    for group in range(0, len(rows), together):
        own = rows[group : group + together]
        after = rows[group + together] if group + together < len(rows) else shape[0]
        if own[-1] + tile <= first_row:
            continue
        if base is None:
            base = own[0]
        height = own[-1] + tile - base
        corners = [(r, c) for r in own for c in cols if wanted is None or wanted(r, c)]
        strips = {}
        for r, in_row in groupby(corners, key=lambda corner: corner[0]):
            columns = [c for _, c in in_row]
            left, right = columns[0], columns[-1] + tile
            strips[r] = left, read(r, left, tile, right - left)
        norm = np.concatenate([norm, np.zeros((height - len(norm), shape[1]), np.float32)])
        for first in range(0, len(corners), batch_size):
            batch = corners[first : first + batch_size]
            tiles = np.stack([_columns(*strips[r], c, tile) for r, c in batch])
            x = to_network(torch.from_numpy(tiles), device)
            seen = []
            for view in range(views):
                with torch.autocast(
                    device.type, dtype=precision, enabled=precision != torch.float32
                ):
                    logits = network(_turned(x, view))
                seen.append(_turned_back(activation(logits.float()), view))
            probs = torch.stack(seen).mean(0).cpu().numpy()  # [b, C, tile, tile]
            total = _extended(total, probs.shape[1], height)
            for (r, c), prob in zip(batch, probs, strict=True):
                total[:, r - base : r - base + tile, c : c + tile] += prob * weight
                norm[r - base : r - base + tile, c : c + tile] += weight
        total = _extended(total, total.shape[0] or 1, height)
        done, skipped = after - base, max(0, first_row - base)
        if done > skipped:
            yield base + skipped, total[:, skipped:done] / np.maximum(norm[skipped:done], 1e-12)
        total, norm, base = total[:, done:], norm[done:], after


def _turned(x: Tensor, view: int) -> Tensor:
    """One of the eight views [B, C, T, T] of square tiles: by quarter turns, from 4 on mirrored."""
    x = torch.rot90(x, view % 4, (2, 3))
    return x.flip(3) if view >= 4 else x


def _turned_back(x: Tensor, view: int) -> Tensor:
    """What `_turned` was given."""
    return torch.rot90(x.flip(3) if view >= 4 else x, -(view % 4), (2, 3))


def _columns(left: int, strip: np.ndarray, col: int, tile: int) -> np.ndarray:
    return strip[:, col - left : col - left + tile]


def _extended(total: np.ndarray, channels: int, height: int) -> np.ndarray:
    """`total` [C, H, W] with zeros below; [0, ...] becomes [channels, ...] once these are known."""
    if total.shape[0] == channels and total.shape[1] == height:
        return total
    out = np.zeros((channels, height, total.shape[2]), np.float32)
    if total.shape[0] == channels:
        out[:, : total.shape[1]] = total
    return out


def predict_image(
    network: nn.Module,
    image: np.ndarray,
    activation: Callable[[Tensor], Tensor],
    tile: int = 224,
    **tiling: object,
) -> np.ndarray:
    """Probability map [C, H, W] float32 of a uint8 RGB image [H, W, 3] of any size.

    Tiled as `predict_rows` does; an image smaller than a tile is mirrored up to it.
    """
    h, w = image.shape[:2]
    image = at_least(image, tile)
    parts = predict_rows(network, reader(image), image.shape[:2], activation, tile, **tiling)
    return np.concatenate([prob for _, prob in parts], axis=1)[:, :h, :w]


def probability(logits: Tensor) -> Tensor:
    """Probability [B, 1, H, W] of logits [B, C, H, W]: of the last of two classes, or the one."""
    return logits.sigmoid() if logits.shape[1] == 1 else torch.softmax(logits, 1)[:, 1:]


def predict_prob(network: nn.Module, image: np.ndarray, tiling: dict) -> np.ndarray:
    """Probability [H, W] in 0..1 of a nucleus or, by a detector, of being near its centre.

    image [H, W, 3] uint8; `tiling`: the arguments of `predict_image`.
    """
    return predict_image(network, image, probability, **tiling)[0]


def at_least(image: np.ndarray, size: int) -> np.ndarray:
    """An image [H, W, 3], mirrored below and to the right where a side is shorter than `size`."""
    h, w = image.shape[:2]
    if min(h, w) >= size:
        return image
    padding = ((0, max(0, size - h)), (0, max(0, size - w)), (0, 0))
    return np.pad(image, padding, mode="symmetric")
