"""Tasks that several processes of this machine do side by side."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from code_common.errors import STOPS, InputError
from code_common.threads import cores

T = TypeVar("T")
CAN_FORK = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"


def side_by_side(
    tasks: Sequence[str], do: Callable[[str], T], processes: int
) -> Iterator[tuple[str, T]]:
    """Do tasks in several processes, which share the cores; gives (task, result) as each ends.

    A process takes the next task when it is free. The processes are forks of this one: they share
    what is loaded, and each reads and changes its own copy. So `do` returns what is to be known
    here. An error of a task is raised here. Raises InputError where a process was killed, as it is
    where the memory is full.
    """
    processes = min(processes, len(tasks))
    if processes < 2 or not CAN_FORK:
        yield from ((task, do(task)) for task in tasks)
        return
    waiting, running = list(reversed(tasks)), {}
    fork = multiprocessing.get_context("fork")
    sys.stdout.flush()  # else each process would write what is not written yet
    share = max(1, cores() // processes)
    children, ends = [], []
    try:
        # A signal that comes before a child has made up what to do with it would be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            for _ in range(processes):
                here, there = fork.Pipe()
                ends.append(here)
                child = fork.Process(target=_serve, args=(there, ends, do, share), daemon=True)
                child.start()
                children.append(child)
                there.close()  # so that its end is heard here
                running[here] = waiting.pop()
                here.send(running[here])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while running:
            for pipe in wait(list(running)):
                task = running.pop(pipe)
                try:
                    result, error, trace = pipe.recv()
                except EOFError:
                    raise InputError(
                        f"a process was killed while it did {task} (out of memory?); the same "
                        "command goes on, and with OMP_NUM_THREADS=1 before it one image at a time"
                    ) from None
                if error:
                    raise error from RuntimeError(trace)
                if waiting:
                    running[pipe] = waiting.pop()
                    pipe.send(running[pipe])
                yield task, result
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join()


def _serve(
    pipe: Connection, ends: list[Connection], do: Callable[[str], object], share: int
) -> None:
    """Do the tasks that come through a pipe, with a share of the cores.

    ends: those of the first process, of which this one has a copy.
    """
    import cv2
    import torch

    for end in ends:
        end.close()  # else this process would not hear that the first one has ended
    # The first process hears these, too, and ends us.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in set(STOPS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    # The threads of the first process are not here. Libraries that wait for these would hang.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = str(share)
    while True:
        try:
            task = pipe.recv()
        except EOFError:  # the first process has ended
            return
        try:
            pipe.send((do(task), None, ""))
        except Exception as error:
            pipe.send((None, error, traceback.format_exc()))
