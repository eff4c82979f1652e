"""The Gaussian kernel filter in plain PyTorch: low-rank colour features x separable Gaussians.

The colour kernel is replaced by phi(c)^T phi(c') with Nystroem features at a few landmark colours
(pivoted Cholesky: Harbrecht, Peters & Schneider 2012), the spatial one by Gaussian nodes on a grid.
Then W v = sum_k phi_k (G (phi_k v)): symmetric and positive semi-definite, like the kernel.
"""

import math

import torch
from torch import Tensor

SAMPLE = 4096  # pixels of an image that landmarks are chosen from
TOLERANCE = 1e-3  # residual at which features are enough: gradients within 0.1 % on H&E
NODE_SPACING = 0.6  # of the spatial nodes in units of sigma_xy: error below 1e-5


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
    """A [nodes, length] with A^T A = exp(-(x - y)^2 / 2 sigma^2) up to 1e-5.

    A product of two Gaussians of deviation sigma / sqrt(2) around a node, summed over nodes.
    """
    spacing = NODE_SPACING * sigma
    nodes = torch.arange(-4 * sigma, length - 1 + 4 * sigma + spacing, spacing)
    x = torch.arange(length)
    difference = (nodes.double()[:, None] - x.double()) / sigma
    scale = math.sqrt(NODE_SPACING / math.sqrt(math.pi / 2))
    return (scale * torch.exp(-difference.square())).to(like)


def low_rank_filter(
    image: Tensor,
    values: Tensor,
    sigma_xy: float,
    sigma_rgb: float,
    tolerance: float = TOLERANCE,
    max_rank: int = 160,
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
    kernel = torch.exp(-torch.cdist(centres, centres).square() / 2)
    ridge = 1e-6 if values.dtype == torch.float32 else 1e-12
    factor = torch.linalg.cholesky(kernel + ridge * torch.eye(kernel.shape[1]).to(kernel))
    cross = torch.exp(-torch.cdist(centres, colours).square() / 2)  # [B, K, N]
    phi = torch.linalg.solve_triangular(factor, cross, upper=False)
    phi = phi.view(batch, -1, 1, height, width)
    rows, columns = (spatial_nodes(n, sigma_xy, values) for n in (height, width))
    spread = rows @ (phi * values[:, None]) @ columns.T  # [B, K, C, nodes, nodes]
    return (phi * (rows.T @ spread @ columns)).sum(1), residual
