"""What a loss returns: named terms that several processes can add up to the loss of one.

A loss function takes (logits, batch) and returns `dict[str, LossTerm]`. Each term is already
weighted. The loop minimises the sum of the terms' means, logs each by its name, and stops at the
first that is not finite.
"""

from collections.abc import Callable, Iterable, Sequence
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


def add_terms(
    parts: Sequence[dict[str, LossTerm]],
) -> tuple[list[Tensor], dict[str, float]]:
    """The loss of each part of this process' share of a batch, and the terms' means over all.

    parts: the terms of each part, of the same names. Divided by the counts of all parts of all
    processes, the losses of the parts add up to that of the whole batch.
    """
    sums = torch.stack([_total(part[name].sum for part in parts) for name in parts[0]])
    counts = torch.stack([_total(part[name].count for part in parts) for name in parts[0]])
    sums, counts = distributed.add_up(torch.stack([sums, counts]))
    counts = counts.clamp(min=1)
    losses = [
        sum(term.sum / count for term, count in zip(part.values(), counts, strict=True))
        for part in parts
    ]
    return losses, dict(zip(parts[0], (sums / counts).tolist(), strict=True))


def _total(values: Iterable[Tensor]) -> Tensor:
    """The sum of scalars, without a gradient."""
    return torch.stack([value.detach().float() for value in values]).sum()
