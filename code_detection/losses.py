"""Loss of stage 1: weighted error where something is known (Qu et al. 2020, Eq. 2)."""

import torch
from torch import Tensor

from code_common.learning.loss_terms import LossTerm, softplus


def masked_loss(
    logits: Tensor, target: Tensor, weight: Tensor, kind: str = "mse"
) -> dict[str, LossTerm]:
    """The one term, named by its kind: weighted error over the known pixels (D8).

    logits [B, 1, H, W]; target [B, H, W] in 0..1; weight [B, H, W]. kind: 'mse', (sigmoid(logits) -
    target)^2, as published; or 'bce', the binary cross-entropy, which has the same optimum, but
    whose gradient does not vanish where the network is sure and wrong.
    """
    if kind == "mse":
        error = (torch.sigmoid(logits[:, 0]) - target).square()
    else:
        error = softplus(logits[:, 0]) - target * logits[:, 0]
    # A pixel that weighs less than 1 is known to that extent. Were it not counted, a batch of crops
    # without a point would have a loss of thousands, and its one step could undo the training.
    return {kind: LossTerm(sum=(weight * error).sum(), count=weight.clamp(max=1).sum())}
