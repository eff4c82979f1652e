"""Where the time of a training goes."""

import itertools
import time

import torch


class Stopwatch:
    """Where the time goes: seconds between laps, summed by name, also of kernels on a GPU."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.laps: list[tuple[str, object]] = [("", self._now())]

    def _now(self) -> object:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # read at the end: nothing waits for it
        event.record()
        return event

    def lap(self, name: str) -> None:
        """What was done since the last lap is called `name`."""
        self.laps.append((name, self._now()))

    def seconds(self) -> dict[str, float]:
        """Seconds by name."""
        if self.cuda:
            torch.cuda.synchronize()
        sums: dict[str, float] = {}
        for (_, before), (name, after) in itertools.pairwise(self.laps):
            took = before.elapsed_time(after) / 1000 if self.cuda else after - before
            sums[name] = sums.get(name, 0.0) + took
        return sums
