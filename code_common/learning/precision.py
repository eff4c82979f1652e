"""float32 or bfloat16: on a CPU the faster one, measured once for each kind of processor."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from code_common.errors import InputError, reason
from code_common.files.reading import read_json
from code_common.files.writing import write_json
from code_common.learning.hardware import processor

# bfloat16 has to be this much faster. Where the processor multiplies it, it is about twice as fast,
# and elsewhere several times slower, so noise does not decide.
WORTH = 1.2
ROUNDS, CALLS = 5, 3  # the best of CALLS x ROUNDS times counts
SIZE = 2, 64, 56, 56  # images, channels, rows and columns of the convolution that is timed


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of a network: 'fp32', 'bf16', or 'auto', the faster one on this device."""
    if name != "auto":
        return torch.float32 if name == "fp32" else torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and measured_gain(memory_folder()) >= WORTH
    return torch.bfloat16 if fast else torch.float32


def precision_name(precision: torch.dtype) -> str:
    """A number format as --precision calls it."""
    return "fp32" if precision == torch.float32 else "bf16"


def memory_folder() -> Path:
    """Where measurements of this machine are kept: a folder of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "nuclei_from_points"


def measured_gain(folder: Path) -> float:
    """How many times as fast bfloat16 is as float32, as `folder` remembers it or as measured now.

    Equal runs on one processor have to compute in one format, so the first measurement is kept.
    """
    machine, path = f"{processor()}, torch {torch.__version__}", folder / "bfloat16.json"
    known: dict[str, float] = {}
    with suppress(InputError):  # no such file yet, or one that is no memory of ours
        known = read_json(path, {str: float})
    if machine not in known:
        known[machine] = round(_gain(), 2)
        taken = "bfloat16" if known[machine] >= WORTH else "float32"
        kept = f"kept in {path}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
        except OSError as error:
            kept = f"not kept: {reason(error)}"
        print(
            f"bfloat16 is {known[machine]} times as fast as float32 on this processor: "
            f"--precision auto is {taken} ({kept})",
            file=sys.stderr,
        )
    return known[machine]


def _gain() -> float:
    """Time of a convolution in float32 divided by that in bfloat16, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool of threads would not outlive the fork of `side_by_side`
    try:
        best = {False: float("inf"), True: float("inf")}
        convolution = nn.Conv2d(SIZE[1], SIZE[1], 3, padding=1)
        convolution = convolution.to(memory_format=torch.channels_last)
        image = torch.ones(SIZE).to(memory_format=torch.channels_last)
        for _ in range(ROUNDS):
            for half in best:  # by turns, so that another program disturbs both
                for _ in range(CALLS):
                    start = time.perf_counter()
                    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                        convolution(image)
                    best[half] = min(best[half], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return best[False] / best[True]
