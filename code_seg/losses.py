"""Losses of stage 2 (Qu et al. 2020, Sec. III-B): cross entropy on both labels, dense CRF loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from code_seg.crf_loss import STRENGTH, dense_crf_loss
from code_seg.labels import IGNORED


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross entropy of logits [B, 2, H, W] over the labelled pixels of label [B, H, W].

    0 where no pixel has a label.
    """
    total = F.cross_entropy(logits, label.long(), ignore_index=IGNORED, reduction="sum")
    return total / (label != IGNORED).sum().clamp(min=1)


def label_terms(logits: Tensor, voronoi: Tensor, clusters: Tensor, alpha: float) -> dict:
    """alpha CE(Voronoi) + (1 - alpha) CE(cluster), Eq. 4; labels [B, H, W] uint8."""
    return {
        "voronoi": alpha * cross_entropy(logits, voronoi),
        "cluster": (1 - alpha) * cross_entropy(logits, clusters),
    }


def crf_term(
    logits: Tensor, image: Tensor, inside: Tensor, weight: float, sigma_xy: float,
    sigma_rgb: float, backend: str,
) -> dict:  # fmt: skip
    """weight x dense CRF loss, Eq. 5; image [B, 3, H, W] in 0..1; inside [B, H, W]: no padding."""
    prob = torch.softmax(logits, dim=1)
    loss = dense_crf_loss(prob, image, inside, sigma_xy, sigma_rgb, backend)
    return {"crf": weight * STRENGTH[backend] * loss}
