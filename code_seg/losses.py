"""Losses of stage 2 (Qu et al. 2020, Sec. III-B): cross entropy on both labels, dense CRF loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from code_seg.crf_loss import STRENGTH, dense_crf_loss
from code_seg.labels import IGNORED

Term = tuple[Tensor, Tensor]  # sum over what a batch holds, and how many there are to divide by


def cross_entropy(logits: Tensor, label: Tensor) -> Term:
    """Cross entropy of logits [B, 2, H, W], summed over the labelled pixels, and their number."""
    total = F.cross_entropy(logits, label.long(), ignore_index=IGNORED, reduction="sum")
    return total, (label != IGNORED).sum()


def label_terms(logits: Tensor, voronoi: Tensor, clusters: Tensor, alpha: float) -> dict[str, Term]:
    """alpha CE(Voronoi) + (1 - alpha) CE(cluster), Eq. 4; labels [B, H, W] uint8."""
    (edges, edge_count), (cells, cell_count) = (
        cross_entropy(logits, label) for label in (voronoi, clusters)
    )
    return {"voronoi": (alpha * edges, edge_count), "cluster": ((1 - alpha) * cells, cell_count)}


def crf_term(
    logits: Tensor, image: Tensor, inside: Tensor, weight: float, sigma_xy: float,
    sigma_rgb: float, backend: str,
) -> dict[str, Term]:  # fmt: skip
    """weight x dense CRF loss, Eq. 5; image [B, 3, H, W] in 0..1; inside [B, H, W]: no padding."""
    images = len(logits)
    prob = torch.softmax(logits, dim=1)
    if images:
        loss = dense_crf_loss(prob, image, inside, sigma_xy, sigma_rgb, backend)
    else:
        loss = prob.sum()  # 0, and part of the graph
    return {"crf": (weight * STRENGTH[backend] * loss * images, logits.new_tensor(images))}
