"""The hardware of a run: which device, workers and processes to take, and what it is."""

import os
import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread

import torch

from code_common.errors import InputError, reason
from code_common.files.image_kinds import memory_bytes
from code_common.learning import distributed
from code_common.threads import allotted_cores, cores


def describe(device: torch.device) -> dict[str, str | int]:
    """Processor, cores that this process may use, memory, GPU and versions."""
    machine = {
        "system": platform.platform(terse=True),
        "processor": processor(),
        "cores": allotted_cores(),
        "threads": torch.get_num_threads(),
        "memory": f"{memory_bytes() / 2**30:.0f} GiB",
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    machine["device"] = str(device)
    machine["python"], machine["torch"] = platform.python_version(), torch.__version__
    return machine


def processor() -> str:
    """The name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def choose_device(name: str, gpu: int | None = None) -> torch.device:
    """'auto' takes CUDA, then Apple's MPS, then the CPU; InputError where the choice is absent.

    `gpu` picks one of the CUDA devices that CUDA_VISIBLE_DEVICES leaves visible.
    """
    if gpu is None and distributed.local_rank() is not None and torch.cuda.is_available():
        gpu = distributed.local_rank()  # one GPU for each process of this machine
    if gpu is not None and name in ("auto", "cuda"):
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {reason(error)}") from None
    return device


SHARED_MEMORY = Path("/dev/shm")  # through which workers hand their crops over
# The place of a socket has at most 103 bytes (macOS; Linux: 107), and TMPDIR/pymp-12345678/
# listener-12345678 is that of a worker's.
LONGEST_TEMPORARY = 103 - len("/pymp-12345678/listener-12345678")
MEMORY_OF_PROCESS = 2 << 30  # bytes that a process needs which does an image
BATCHES_OF_A_WORKER = 2  # that torch lets a worker make ahead


def workers_with_room(workers: int, batch_bytes: int) -> int:
    """How many of `workers` processes that make crops find room for their batches.

    batch_bytes: size of a batch. Containers have 64 MB of shared memory unless they are asked for
    more; a worker that finds no room in it ends the run.
    """
    if not workers or not hasattr(os, "statvfs") or not SHARED_MEMORY.is_dir():
        return workers
    room = os.statvfs(SHARED_MEMORY)
    processes = max(1, distributed.size())
    batches = room.f_bavail * room.f_frsize / processes / max(1, batch_bytes)
    # One batch more is in use, and one is on its way to the GPU.
    return int(min(workers, max(0, (batches - 2) // BATCHES_OF_A_WORKER)))


def choose_workers(workers: int, device: torch.device) -> int:
    """Processes that make crops; -1 chooses: none on a CPU, where the network is the bottleneck.

    Raises InputError where they could not talk to this process, and would wait for ever.
    """
    if workers < 0:
        workers = min(8, torch.get_num_threads()) if device.type == "cuda" else 0
    folder = tempfile.gettempdir()
    if workers and len(os.fsencode(folder)) > LONGEST_TEMPORARY:
        raise InputError(
            f"TMPDIR {folder}: too long for the sockets of workers, expected at most "
            f"{LONGEST_TEMPORARY} characters; set a shorter one, or give --workers 0"
        )
    return workers


def thread_pool(count: int, each: int) -> ThreadPoolExecutor:
    """A pool of `count` threads, in which each torch operation has `each` threads of its own.

    torch takes the number that any thread set last for all threads that are yet to come, and for
    libraries whose first loop is yet to come. Those of the thread that asks for the pool stay.
    """

    def begin() -> None:
        torch.set_num_threads(each)
        torch.get_num_threads()  # takes the number set last: maybe that of a thread beside this one
        torch.set_num_threads(each)
        others = Thread(target=torch.set_num_threads, args=(of_program,))
        others.start()
        others.join()

    of_program = torch.get_num_threads()
    pool, all_begun = ThreadPoolExecutor(count, initializer=begin), Barrier(count + 1)
    for _ in range(count):  # now: one that begins later would disturb the others for a moment
        pool.submit(all_begun.wait)
    all_begun.wait()
    return pool


def choose_processes(device: torch.device) -> int:
    """How many images are done at a time, each in a process of its own: on a CPU one for each core
    that has MEMORY_OF_PROCESS; on a GPU one.
    """
    return min(cores(), memory_bytes() // MEMORY_OF_PROCESS) if device.type == "cpu" else 1
