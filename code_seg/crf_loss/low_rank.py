"""The Gaussian kernel filter in plain PyTorch: low-rank colour features x separable Gaussians.

    W ~ sum_kl C_k (M^-1)_kl G C_l

C_k(p) is the colour kernel between pixel p and landmark colour k, M the colour kernel among the
landmarks, and G the spatial kernel. Pivoted Cholesky chooses the landmarks (Harbrecht, Peters &
Schneider 2012). G is applied through Gaussian nodes on a coarse grid, where M^-1 costs almost
nothing. The result is symmetric and positive semi-definite, as the kernel is. csrc/low_rank.h does
the same.
"""

import math

import torch
from torch import Tensor

SAMPLE = 4096  # pixels of an image among which landmarks are chosen
TOLERANCE = 1e-3  # residual below which the features suffice: on H&E, gradients within 0.1 %
MAX_RANK = 160  # largest number of landmarks; noise would need thousands
NODE_SPACING = 0.7  # of the spatial nodes in units of sigma_xy; the ripple is below 1e-4
NODE_MARGIN = 2.5  # of the nodes around the image in units of sigma_xy


def landmarks(colours: Tensor, tolerance: float, max_rank: int) -> tuple[Tensor, float]:
    """Choose landmark colours among colours [B, n, 3], which are in units of sigma_rgb.

    The choice is greedy: the next landmark is the colour that the features so far represent worst.
    The residual is the mean of 1 - |phi|^2, the part of a colour that is not represented. The
    choice ends when the residual of each image is below `tolerance`, or with `max_rank` landmarks.
    Returns the indices [B, K] of the landmarks and the residual of the worst image. The error of
    the kernel between two pixels is at most the root of the product of their residuals.
    """
    batch = torch.arange(len(colours), device=colours.device)
    rest = colours.new_ones(colours.shape[:2])  # [B, n]
    features, chosen = colours.new_zeros((*colours.shape[:2], 0)), []
    for _ in range(max_rank):
        pivot = rest.argmax(1)
        chosen.append(pivot)
        distance = (colours - colours[batch, pivot, None]).square().sum(-1)
        column = torch.exp(-distance / 2)
        column = column - torch.einsum("bnk,bk->bn", features, features[batch, pivot])
        new = column / rest[batch, pivot].clamp(min=1e-7).sqrt()[:, None]
        features = torch.cat([features, new[..., None]], dim=2)
        rest = (rest - new.square()).clamp(min=0)
        residual = rest.mean(1).max().item()
        if residual < tolerance:
            break
    return torch.stack(chosen, 1), residual


def spatial_nodes(length: int, sigma: float, like: Tensor) -> Tensor:
    """A matrix A [nodes, length] with (A^T A)(x, y) = exp(-(x - y)^2 / 2 sigma^2) up to 1e-4.

    Each node contributes the product of two Gaussians of deviation sigma / sqrt(2) around it.
    length and sigma are in pixels; A has the type and device of `like`.
    """
    spacing = NODE_SPACING * sigma
    margin = NODE_MARGIN * sigma
    nodes = torch.arange(-margin, length - 1 + margin + spacing, spacing, dtype=torch.float64)
    x = torch.arange(length)
    difference = (nodes[:, None] - x) / sigma
    scale = math.sqrt(NODE_SPACING / math.sqrt(math.pi / 2))
    return (scale * torch.exp(-difference.square())).to(like)


def low_rank_filter(
    image: Tensor,
    values: Tensor,
    sigma_xy: float,
    sigma_rgb: float,
    tolerance: float = TOLERANCE,
    max_rank: int = MAX_RANK,
) -> tuple[Tensor, float]:
    """Filter values [B, C, H, W] with the kernel W of each image [B, 3, H, W] of a batch.

    Returns W values [B, C, H, W] and the residual (see `landmarks`). sigma_xy is in pixels,
    sigma_rgb in the unit of the image. The colours of tissue lie near a plane, so 30 to 100
    features are enough. For arbitrary colours, such as noise, `max_rank` features keep only a part
    of the kernel, and the residual is large.
    """
    batch, channels, height, width = values.shape
    if values.numel() == 0:
        return torch.empty_like(values), 0.0
    colours = (image / sigma_rgb).flatten(2).transpose(1, 2)  # [B, N, 3]
    sample = colours[:, :: max(1, colours.shape[1] // SAMPLE)]
    picked, residual = landmarks(sample, tolerance, max_rank)  # [B, K]
    centres = torch.gather(sample, 1, picked[..., None].expand(-1, -1, 3))
    ridge = 1e-6 if values.dtype == torch.float32 else 1e-12
    kernel = torch.exp(-torch.cdist(centres.double(), centres.double()).square() / 2)
    kernel = kernel + ridge * torch.eye(kernel.shape[1]).to(kernel)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel)).to(values)  # [B, K, K]
    distance = torch.cdist(centres, colours, compute_mode="donot_use_mm_for_euclid_dist")
    cross = torch.exp(-distance.square() / 2).view(batch, -1, 1, height, width)
    rows, columns = (spatial_nodes(n, sigma_xy, values) for n in (height, width))
    spread = rows @ (cross * values[:, None]) @ columns.T  # [B, K, C, nodes, nodes]
    solved = torch.einsum("bkl,blcij->bkcij", inverse, spread)
    return (cross * (rows.T @ solved @ columns)).sum(1), residual
