"""What a run ran on, in words."""

import os
import platform
from pathlib import Path

import torch


def describe(device: torch.device) -> dict[str, str | int]:
    """Processor, cores that this process may use, memory, GPU and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": cores or 1,
        "threads": torch.get_num_threads(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        machine["memory"] = f"{memory / 2**30:.0f} GiB"
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    machine["device"] = str(device)
    machine["python"], machine["torch"] = platform.python_version(), torch.__version__
    return machine


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
