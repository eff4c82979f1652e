"""Loss of stage 1: weighted squared error where something is known (Qu et al. 2020, Eq. 2)."""

import torch
from torch import Tensor


def masked_mse(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """sum(w (sigmoid(logits) - target)^2) and |w > 0|, by which it is to be divided (D8).

    logits [B, 1, H, W]; target [B, H, W] in 0..1; weight [B, H, W], 0 where unknown.
    """
    error = (torch.sigmoid(logits[:, 0]) - target).square()
    return (weight * error).sum(), (weight > 0).sum()
