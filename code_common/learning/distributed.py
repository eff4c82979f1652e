"""Several processes that work as one: each GPU has one, started by torchrun or by `launch`.

The state is torch.distributed's own. Where it was never joined there is one process, every
function below is the identity, and nothing is sent.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

# One process may prepare labels for long while the others wait for it.
TIMEOUT = timedelta(hours=12)
GRACE_S = 3.0  # for processes that were told to stop


def local_rank() -> int | None:
    """This process' number on its machine, or None where it was started alone."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


def work_together(device: torch.device, action: Callable[[], object]) -> object:
    """Do `action` with the processes that were started with this one (WORLD_SIZE), if any.

    Returns what `action` does in the first process, elsewhere None.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return action()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Messages between steps go over gloo, so that a long wait never blocks a GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        result = action()
    except RuntimeError as error:
        # Another process has failed and told why; this one only lost its peer.
        if re.search("onnection|peer|NCCL", str(error)):
            sys.exit(1)
        raise
    result = result if rank() == 0 else None
    dist.destroy_process_group()
    return result


def rank() -> int:
    """Number of this process; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes work as one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def add_up(values: Tensor) -> Tensor:
    """Sum over the processes, the same bits in all of them; no gradient."""
    if size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def from_first(value: object) -> object:
    """The value that the first process has."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def from_all(value: object) -> list:
    """The values of all processes, in order."""
    if size() == 1:
        return [value]
    box: list = [None] * size()
    dist.all_gather_object(box, value)
    return box


def wait_for_all() -> None:
    """Go on when every process has come here."""
    from_all(None)


class _AddUp(torch.autograd.Function):
    """Sum over the processes; as each one's loss depends on it, so is its gradient."""

    @staticmethod
    def forward(_, values: Tensor) -> Tensor:
        return add_up(values)

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return add_up(gradient.contiguous())


class SharedNorm(nn.BatchNorm2d):
    """A batch norm over the batch of all processes, also where one of them has no image of it.

    torch's own SyncBatchNorm works on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        x = x.to(self.weight.dtype)
        count = x.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])
        sums = _AddUp.apply(torch.cat([x.sum((0, 2, 3)), count]))
        count = sums[-1].detach()
        mean = (sums[:-1] / count).view(1, -1, 1, 1)
        # Around the mean, as a difference of two large sums would lose the digits.
        variance = _AddUp.apply((x - mean).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = self.momentum or 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.flatten(), share)
            self.running_var.lerp_(variance * count / (count - 1), share)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x - mean) * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def share_norms(network: nn.Module) -> None:
    """Make every batch norm of a network one over all processes; parameters stay as they are."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedNorm


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(count: int, command: Sequence[str] | None = None) -> int:
    """Run this script (or `command`) as `count` processes of one machine; returns the exit status.

    That is the first status other than 0, when the other processes are stopped.
    """
    command = command or [sys.executable, *sys.argv]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    children = []
    for k in range(count):
        environment = {**os.environ, **place, "RANK": str(k), "LOCAL_RANK": str(k)}
        children.append(subprocess.Popen(command, env=environment))
    try:
        while None in (states := [child.poll() for child in children]) and not any(states):
            time.sleep(0.1)
    except KeyboardInterrupt:
        # A terminal tells the children, too; who sends the signal to this process alone does not.
        time.sleep(GRACE_S)
    for child in children:
        if child.poll() is None:
            child.terminate()
    states = [child.wait() for child in children]
    return next((s for s in states if s > 0), 1 if any(states) else 0)
