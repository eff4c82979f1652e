"""Tiled inference: overlapping tiles in batches, blended without seams (D28)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from code_common.patches import windows


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
    return [str(tiling[k]) for k in ("tile", "overlap", "precision")]


@torch.inference_mode()
def predict_image(
    network: nn.Module,
    image: np.ndarray,
    activation: Callable[[Tensor], Tensor],
    tile: int = 224,
    overlap: int = 80,
    batch_size: int = 8,
    precision: torch.dtype = torch.float32,
) -> np.ndarray:
    """Probability map [C, H, W] float32 of a uint8 RGB image [H, W, 3] of any size.

    The last tile of a row ends at the image's border, so that no tile sees padding; an image
    smaller than a tile is mirrored up to it. `activation` maps logits to probabilities.
    """
    device = next(network.parameters()).device
    h, w = image.shape[:2]
    if min(h, w) < tile:
        padding = ((0, max(0, tile - h)), (0, max(0, tile - w)), (0, 0))
        image = np.pad(image, padding, mode="symmetric")
    corners = windows(image.shape[:2], tile, overlap)
    weight = blend_weight(tile, overlap)
    total, norm = None, np.zeros(image.shape[:2], np.float32)
    for first in range(0, len(corners), batch_size):
        batch = corners[first : first + batch_size]
        tiles = np.stack([image[r : r + tile, c : c + tile] for r, c in batch])
        x = to_network(torch.from_numpy(tiles), device)
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            logits = network(x)
        probs = activation(logits.float()).cpu().numpy()  # [b, C, tile, tile]
        if total is None:
            total = np.zeros((probs.shape[1], *image.shape[:2]), np.float32)
        for (r, c), prob in zip(batch, probs, strict=True):
            total[:, r : r + tile, c : c + tile] += prob * weight
            norm[r : r + tile, c : c + tile] += weight
    return (total / norm)[:, :h, :w]


def to_network(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in 0..1 on the device, channels last in memory."""
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
