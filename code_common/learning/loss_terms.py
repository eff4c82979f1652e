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
