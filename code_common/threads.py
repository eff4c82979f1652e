"""The cores that this process may use, and libraries that take no more than these."""

import os
import re
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

STATE = Path("/proc/stat")  # what each core did since the machine was started
BUSY = 0, 1, 2, 5, 6, 7  # its numbers of a core that are no idleness
_CORE = re.compile(r"cpu(\d+)((?: \d+){8})")  # its line of a core
MEMBERSHIP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# A thread that waits for the others looks this often whether they are ready, and then sleeps. By
# default it looks for milliseconds. Beside another busy program it thus takes the core from those
# that it waits for: inference becomes five times as slow.
SPINS = 1000
LEAST_S = 5.0  # seconds in which others show how busy they are


def allotted_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use: at least one, and no more than the machine has.

    Its affinity (taskset), the quota of its control group (containers, systemd) and
    SLURM_CPUS_PER_TASK may each allow fewer.
    """
    limits: list[float] = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    limits += _quotas(MEMBERSHIP, CGROUPS)
    of_job = environment.get("SLURM_CPUS_PER_TASK", "")
    if of_job.isdecimal():
        limits.append(int(of_job))
    return max(1, int(min(limits)))


def _quotas(membership: Path, root: Path) -> Iterator[float]:
    """Cores that the control groups of a process, and the groups around them, may use.

    membership: lines 'number:controllers:/group' of Linux. Version 2 has one group for all
    controllers, which the line does not name, and version 1 has one for each.
    """
    for line in _lines(membership):
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        own = top / group.lstrip("/")  # in a container it may not be there, but the top is
        for folder in (own, *(p for p in own.parents if p.is_relative_to(top))):
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            words = " ".join(line for file in files for line in _lines(folder / file)).split()
            # No limit is 'max' in version 2, and -1 in version 1.
            if len(words) == 2 and all(map(str.isdecimal, words)) and int(words[1]):
                yield int(words[0]) / int(words[1])


def _lines(path: Path) -> list[str]:
    """The lines of a file, none where it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def respect_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let torch, BLAS and OpenCV take the allotted cores, and sleep where they wait.

    They read this when they are loaded, so it comes before. What the user has set stays.
    """
    environment.setdefault("OMP_NUM_THREADS", str(allotted_cores(environment)))
    environment.setdefault("OPENCV_FOR_THREADS_NUM", str(cores(environment)))
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process shall use: OMP_NUM_THREADS, or those that are allotted to it."""
    words = environment.get("OMP_NUM_THREADS", "").split(",")  # more for threads within threads
    first = words[0].strip()
    return int(first) if first.isdecimal() and int(first) else allotted_cores(environment)


class Neighbours:
    """How many of the cores of this process other programs keep busy, since it was made."""

    def __init__(self, state: Path = STATE):
        self.state = state
        self.ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self.start = self._now()

    def _now(self) -> tuple[float, float, float]:
        """The time, and the seconds that all programs and that this one computed on our cores."""
        ticks = 0
        for line in _lines(self.state):
            core = _CORE.match(line)
            if core and int(core[1]) in self.ours:
                numbers = core[2].split()
                ticks += sum(int(numbers[i]) for i in BUSY)
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()

    def advice(self, threads: int) -> str:
        """What to do where `threads` threads are more than the others leave room for, or ''.

        Threads of one computation wait for each other, so all wait for the one without a core.
        """
        took, everybody, own = (b - a for a, b in zip(self.start, self._now(), strict=True))
        others, cores = max(0.0, everybody - own) / max(took, 1e-9), len(self.ours)
        if threads < 2 or took < LEAST_S or others < 0.5 or others + threads < cores + 0.5:
            return ""
        return (
            f"cores busy with other programs: {others:.1f} of {cores}, so {threads} threads wait "
            f"for each other; OMP_NUM_THREADS={max(1, int(cores - others))} may be faster"
        )
