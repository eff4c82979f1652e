"""A batch in parts, which the cores of a CPU do side by side."""

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from code_common.learning.hardware import thread_pool

A, B = TypeVar("A"), TypeVar("B")


class Parts:
    """A network that does each part of a batch by itself, with batch norms of the part alone.

    On a CPU each part has a thread. These wait for each other twice in a step. The threads of one
    operation wait hundreds of times, and beside another busy program each time is long. The bits
    do not depend on whether the parts are done side by side.
    """

    def __init__(
        self,
        network: nn.Module,
        count: int,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ):
        """network: on its device; `count` parts at most; wrap: makes of it what a step calls."""
        self.plain = [network, *(_replica(network) for _ in range(count - 1))]
        self.stepping = [wrap(one) for one in self.plain]
        device, threads = next(network.parameters()).device, torch.get_num_threads()
        self.pool = None
        if count > 1 and threads > 1 and device.type == "cpu":
            self.pool = thread_pool(min(count, threads), threads_of_a_part(count, device))

    def cut(self, batch: Tensor) -> list[Tensor]:
        """The parts [b, ...] of a batch [B, ...]. Only the part of an empty batch is empty."""
        return list(batch.tensor_split(max(1, min(len(self.plain), len(batch)))))

    def train(self) -> None:
        """Let the networks learn."""
        for network in self.stepping:
            network.train()

    def map(self, do: Callable[[nn.Module, A], B], parts: Sequence[A]) -> list[B]:
        """`do(network, part)` of each part, in their order."""
        return self._map(do, self.stepping, parts)

    def _map(
        self, do: Callable[[nn.Module, A], B], networks: list[nn.Module], parts: Sequence[A]
    ) -> list[B]:
        return list((self.pool.map if self.pool else map)(do, networks, parts))

    def add_gradients(self) -> None:
        """Add the gradients of all parts up in the network's own parameters."""
        for replica in self.plain[1:]:
            for own, other in zip(self.plain[0].parameters(), replica.parameters(), strict=True):
                if other.grad is not None:
                    own.grad.add_(other.grad)
                    other.grad = None

    @torch.no_grad()
    def calibrate_norms(self, batches: Iterable[Tensor], forward: Callable[..., object]) -> None:
        """Set the batch norms' statistics to those of the present weights over some batches.

        batches: [B, ...] each; `forward(network, part)` gives a network a part. Behind a ReLU, a
        channel that is rarely active has a moving variance near 0 most of the time, and inference
        would multiply its next activation by hundreds: whole validation images fail between two
        good epochs. An average over many batches sees such a channel for what it is.
        """
        every = [[m for m in one.modules() if isinstance(m, nn.BatchNorm2d)] for one in self.plain]
        momenta = [norm.momentum for norm in every[0]]
        for norm in itertools.chain(*every):
            norm.reset_running_stats()
            norm.momentum = None  # the plain average
        self.train()

        def look(network: nn.Module, part: Tensor) -> None:
            with torch.no_grad():  # of this thread
                forward(network, part)

        for batch in batches:
            self._map(look, self.plain, self.cut(batch))
        for momentum, norms in zip(momenta, zip(*every, strict=True), strict=True):
            shares = torch.stack([norm.num_batches_tracked for norm in norms]).float()
            shares /= shares.sum()
            for name in ("running_mean", "running_var"):
                of_parts = torch.stack([getattr(norm, name) for norm in norms], 1)
                getattr(norms[0], name).copy_(of_parts @ shares.to(of_parts.dtype))
            for norm in norms:
                norm.momentum = momentum


def threads_of_a_part(count: int, device: torch.device) -> int:
    """Threads of each of `count` parts, of which the bits of their sums depend."""
    threads = torch.get_num_threads()
    return max(1, threads // count) if device.type == "cpu" else threads


def _replica(network: nn.Module) -> nn.Module:
    """A network with the same weights, now and later, and with gradients of its own."""
    replica = copy.deepcopy(network)
    for own, shared in zip(replica.parameters(), network.parameters(), strict=True):
        own.data = shared.data
    return replica
