"""Where the time goes."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
Lap = Callable[[str], None]  # what was done since the last lap is called so


class Stopwatch:
    """Where the time goes: seconds between laps, summed by name, also of kernels on a GPU."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.events: list[tuple[str, object]] = []  # of a GPU: read at the end, nothing waits
        self.sums: dict[str, float] = {}
        self.last = time.perf_counter()
        if self.cuda:
            self.lap("")

    def lap(self, name: str) -> None:
        """What was done since the last lap is called `name`."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append((name, event))
            return
        now = time.perf_counter()
        self._add(name, now - self.last)
        self.last = now

    def _add(self, name: str, seconds: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Seconds by name since the start, or the last call."""
        if self.cuda:
            torch.cuda.synchronize()
            for (_, before), (name, after) in itertools.pairwise(self.events):
                self._add(name, before.elapsed_time(after) / 1000)
            self.events = self.events[-1:]
        sums, self.sums = self.sums, {}
        return sums


def lapped(values: Iterable[T], lap: Lap, name: str, between: str) -> Iterator[T]:
    """The values; making each of them is a lap `name`, what is done with it a lap `between`."""
    for value in values:
        lap(name)
        yield value
        lap(between)
    lap(name)


def no_lap(name: str) -> None:
    """For who does not ask where the time goes."""
