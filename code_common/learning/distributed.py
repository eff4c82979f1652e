"""Several processes that work as one, one for each GPU. torchrun or `launch` starts them.

torch.distributed holds the state. Without it there is one process: every function below then
returns its argument, and nothing is sent.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from code_common.errors import InputError, reason
from code_common.threads import cores

START_TIMEOUT = timedelta(minutes=10)  # for all processes to come
TIMEOUT = timedelta(hours=12)  # one process may prepare labels for hours while the others wait
GRACE_S = 3.0  # time for processes to stop after Ctrl-C


def _number_of(variable: str, low: int, high: int) -> int | None:
    """The number that an environment variable holds, or None where it is empty or not set.

    Raises InputError for something else.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise InputError(
            f"the environment variable {variable} must be a whole number from {low} to {high}, not "
            f"{text[:40]}; {_ALONE}"
        )
    return int(text)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end this process at once: torch hears none of them while it waits."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ALONE = "torchrun sets it; unset WORLD_SIZE, RANK and LOCAL_RANK for one process alone"


def local_rank() -> int | None:
    """Number of this process on its machine, or None if it was started alone.

    Raises InputError where LOCAL_RANK is no number.
    """
    return _number_of("LOCAL_RANK", 0, 9999)


def _meet(backend: str, count: int) -> None:
    """Connect this process to the others, `count` in all; InputError where they do not come."""
    for variable, high in (("RANK", count - 1), ("MASTER_PORT", 65535)):
        if _number_of(variable, 0, high) is None:
            raise InputError(f"WORLD_SIZE is {count}, but {variable} is not set; {_ALONE}")
    if not os.environ.get("MASTER_ADDR"):
        raise InputError(f"WORLD_SIZE is {count}, but MASTER_ADDR is not set; {_ALONE}")
    try:
        with _ended_by_signals():
            store, number, size = next(dist.rendezvous("env://", timeout=START_TIMEOUT))
    except RuntimeError as error:
        minutes = START_TIMEOUT.total_seconds() / 60
        raise InputError(
            f"not all of WORLD_SIZE={count} processes came within {minutes:g} minutes "
            f"({reason(error)}); {_ALONE}"
        ) from None
    store.set_timeout(TIMEOUT)
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=TIMEOUT)


def work_together(device: torch.device, action: Callable[[], object]) -> object:
    """Call `action` together with the processes that were started with this one (WORLD_SIZE).

    Returns the result of `action` in the first process, and None in the others. Raises InputError
    where the environment says something odd of them.
    """
    count = _number_of("WORLD_SIZE", 1, 99_999) or 1
    if count == 1:
        return action()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Messages between steps use gloo, so that a long wait does not block a GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    _meet(backend, count)
    try:
        result = action()
    except RuntimeError as error:
        # Another process has failed and reported why. This one only lost the connection to it.
        if re.search("onnection|peer|NCCL", str(error)):
            sys.exit(1)
        raise
    result = result if rank() == 0 else None
    dist.destroy_process_group()
    return result


def rank() -> int:
    """Number of this process. Process 0 writes and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def size() -> int:
    """Number of processes that work as one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def add_up(values: Tensor) -> Tensor:
    """Sum over the processes, with the same bits in all of them and without a gradient."""
    if size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def from_first(value: object) -> object:
    """The value of the first process."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def from_all(value: object) -> list:
    """The values of all processes, in the order of their ranks."""
    if size() == 1:
        return [value]
    box: list = [None] * size()
    dist.all_gather_object(box, value)
    return box


def wait_for_all() -> None:
    """Return when all processes have called this."""
    from_all(None)


class _AddUp(torch.autograd.Function):
    """Sum over the processes, with a gradient: that is the sum of the processes' gradients."""

    @staticmethod
    def forward(_, values: Tensor) -> Tensor:
        return add_up(values)

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return add_up(gradient.contiguous())


class SharedNorm(nn.BatchNorm2d):
    """A batch norm over the images of all processes. A process may have no image.

    torch's SyncBatchNorm works only on GPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        x = x.to(self.weight.dtype)
        count = x.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])
        sums = _AddUp.apply(torch.cat([x.sum((0, 2, 3)), count]))
        count = sums[-1].detach()
        mean = (sums[:-1] / count).view(1, -1, 1, 1)
        # E[x^2] - mean^2 would lose digits as the difference of two large numbers.
        variance = _AddUp.apply((x - mean).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = self.momentum or 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.flatten(), momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x - mean) * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def share_norms(network: nn.Module) -> None:
    """Turn each batch norm of a network into a SharedNorm with the same parameters."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedNorm


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(count: int, command: Sequence[str] | None = None) -> int:
    """Run this script, or `command`, as `count` processes on this machine.

    A process that fails stops the others. Returns 0 or the first positive exit status; 1 if
    processes were only stopped by signals.
    """
    command = command or [sys.executable, *sys.argv]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(max(1, cores() // count)),
    }
    children = []
    for k in range(count):
        environment = {**os.environ, **common, "RANK": str(k), "LOCAL_RANK": str(k)}
        children.append(subprocess.Popen(command, env=environment))
    try:
        states = [child.poll() for child in children]
        while None in states and not any(states):
            time.sleep(0.1)
            states = [child.poll() for child in children]
    except KeyboardInterrupt:
        # A terminal also sends Ctrl-C to the children. They get time to stop by themselves.
        time.sleep(GRACE_S)
    for child in children:
        if child.poll() is None:
            child.terminate()
    states = [child.wait() for child in children]
    failures = [state for state in states if state > 0]
    if failures:
        return failures[0]
    return 1 if any(states) else 0
