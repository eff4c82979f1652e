"""What a loss returns: named terms that several processes can add up to the loss of one.

A loss function takes (logits, batch) and returns `dict[str, LossTerm]`. Each term is already
weighted. The loop minimises the sum of the terms' means, logs each by its name, and stops at the
first that is not finite.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from code_common.learning import distributed


class LossTerm(NamedTuple):
    """A sum over what a batch holds, and how many things it is a sum over."""

    sum: Tensor
    count: Tensor


# (logits [B, C, H, W], batch: name -> [B, ...]) -> the terms by name
Loss = Callable[[Tensor, dict[str, Tensor]], dict[str, LossTerm]]


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        # Nothing overflows, and each step is one that a CPU does fast.
        return logits.abs().neg_().exp_().add_(1).log_().add_(logits.clamp(min=0))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        return torch.sigmoid(logits).mul_(gradient)


def softplus(logits: Tensor) -> Tensor:
    """log(1 + exp(logits)), in their shape: the cross entropy of two classes for a target of 0.

    For a target t in 0..1 the cross entropy is softplus(logits) - t * logits. It takes half of the
    time that torch's own softplus takes on a CPU.
    """
    return _Softplus.apply(logits)


def add_terms(terms: dict[str, LossTerm]) -> tuple[Tensor, dict[str, float]]:
    """The loss of this process' share of a batch, and each term's mean over all processes.

    Divided by the counts of all processes, the losses of the shares add up to that of one process.
    """
    sums = torch.stack([term.sum.detach().float() for term in terms.values()])
    counts = torch.stack([term.count.detach().float() for term in terms.values()])
    sums, counts = distributed.add_up(torch.stack([sums, counts]))
    counts = counts.clamp(min=1)
    loss = sum(term.sum / count for term, count in zip(terms.values(), counts, strict=True))
    return loss, dict(zip(terms, (sums / counts).tolist(), strict=True))
