"""Loss of stage 1: weighted error where something is known (Qu et al. 2020, Eq. 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_loss(
    logits: Tensor, target: Tensor, weight: Tensor, kind: str = "mse"
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the errors, and the number of known pixels to divide it by (D8).

    logits [B, 1, H, W]; target [B, H, W] in 0..1; weight [B, H, W]. A pixel that weighs less than
    1 is known to that extent: were it not counted, a batch of crops without a point would have a
    loss of thousands, and its one step could undo the training. kind: 'mse', (sigmoid(logits) -
    target)^2, as published; or 'bce', the binary cross-entropy, which has the same optimum, but
    whose gradient does not vanish where the network is sure and wrong.
    """
    if kind == "mse":
        error = (torch.sigmoid(logits[:, 0]) - target).square()
    else:
        error = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    return (weight * error).sum(), weight.clamp(max=1).sum()
