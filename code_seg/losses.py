"""Losses of stage 2 (Qu et al. 2020, Sec. III-B): cross entropy on both labels, dense CRF loss."""

import torch
from torch import Tensor

from code_common.learning.loss_terms import LossTerm, softplus
from code_seg.crf_loss import STRENGTH, dense_crf_loss
from code_seg.labels import IGNORED, NUCLEUS


def label_loss(
    logits: Tensor, voronoi: Tensor, clusters: Tensor, alpha: float
) -> dict[str, LossTerm]:
    """alpha CE(Voronoi) + (1 - alpha) CE(cluster), Eq. 4, over the labelled pixels of each.

    logits [B, 2, H, W] of background and nucleus; labels [B, H, W] uint8.
    """
    background, nucleus = logits.unbind(dim=1)
    difference = (nucleus - background).flatten()
    of_background = softplus(difference)  # cross entropy of each pixel, if it is background
    terms = {}
    for name, label, weight in (("voronoi", voronoi, alpha), ("cluster", clusters, 1 - alpha)):
        known = (label != IGNORED).flatten().to(logits.dtype)
        nuclei = (label == NUCLEUS).flatten().to(logits.dtype)
        # Products of vectors, because a CPU sums up selected pixels slowly.
        total = known @ of_background - nuclei @ difference
        terms[name] = LossTerm(sum=weight * total, count=known.sum())
    return terms


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
