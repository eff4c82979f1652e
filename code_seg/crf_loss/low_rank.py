"""The Gaussian kernel filter in plain PyTorch: low-rank colour features x separable Gaussians.

W ~ sum_kl C_k (M^-1)_kl G C_l, with C_k(p) the colour kernel between pixel p and landmark colour k
(pivoted Cholesky: Harbrecht, Peters & Schneider 2012), M that among the landmarks and G the spatial
kernel, which goes through Gaussian nodes on a coarse grid: there M^-1 costs next to nothing. The
result is symmetric and positive semi-definite, like the kernel. csrc/low_rank.h does the same.
"""

import math

import torch
from torch import Tensor

SAMPLE = 4096  # pixels of an image that landmarks are chosen from
TOLERANCE = 1e-3  # residual at which features are enough: gradients within 0.1 % on H&E
MAX_RANK = 160  # landmarks at most: noise would need thousands
NODE_SPACING = 0.7  # of the spatial nodes in units of sigma_xy: ripple below 1e-4
NODE_MARGIN = 2.5  # of the nodes around the image


def landmarks(colours: Tensor, tolerance: float, max_rank: int) -> tuple[Tensor, float]:
    """Indices [B, K] of the landmark colours among colours [B, n, 3] (in units of sigma).

    Greedy: the next landmark is the colour that the features so far represent worst; they end
    where the residual, the mean of the unrepresented part 1 - |phi|^2, is under `tolerance` for
    every image. Returns the residual of the worst image, too: the kernel's error at a pair of
    pixels is at most the root of the product of their residuals.
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
    """A [nodes, length] with A^T A = exp(-(x - y)^2 / 2 sigma^2) up to 1e-4.

    A product of two Gaussians of deviation sigma / sqrt(2) around a node, summed over nodes.
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
    """W values [B, C, H, W] for each image [B, 3, H, W] of a batch, and the residual.

    Tissue, whose colours lie near a plane, needs 30 to 100 features; of an image of arbitrary
    colours, such as noise, `max_rank` features keep only a part of the kernel, and the residual
    (see `landmarks`) tells.
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
