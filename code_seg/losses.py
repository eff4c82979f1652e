"""Losses of stage 2 (Qu et al. 2020, Sec. III-B): cross entropy on both labels, dense CRF loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from code_common.learning.loss_terms import LossTerm
from code_seg.crf_loss import STRENGTH, dense_crf_loss
from code_seg.labels import IGNORED


def cross_entropy(logits: Tensor, label: Tensor, weight: float) -> LossTerm:
    """Weighted cross entropy of logits [B, 2, H, W] over the labelled pixels of label [B, H, W]."""
    total = F.cross_entropy(logits, label.long(), ignore_index=IGNORED, reduction="sum")
    return LossTerm(sum=weight * total, count=(label != IGNORED).sum())


def label_loss(
    logits: Tensor, voronoi: Tensor, clusters: Tensor, alpha: float
) -> dict[str, LossTerm]:
    """alpha CE(Voronoi) + (1 - alpha) CE(cluster), Eq. 4; labels [B, H, W] uint8."""
    return {
        "voronoi": cross_entropy(logits, voronoi, alpha),
        "cluster": cross_entropy(logits, clusters, 1 - alpha),
    }


def crf_loss(
    logits: Tensor,
    image: Tensor,
    inside: Tensor,
    weight: float,
    sigma_xy: float,
    sigma_rgb: float,
    backend: str,
) -> dict[str, LossTerm]:
    """weight x dense CRF loss, Eq. 5; image [B, 3, H, W] in 0..1; inside [B, H, W]: no padding."""
    images = len(logits)
    prob = torch.softmax(logits, dim=1)
    if images:
        loss = dense_crf_loss(prob, image, inside, sigma_xy, sigma_rgb, backend)
    else:
        loss = prob.sum()  # 0, and part of the graph
    total = weight * STRENGTH[backend] * loss * images
    return {"crf": LossTerm(sum=total, count=logits.new_tensor(images))}
