"""Tasks that several processes do side by side: same results, errors told, none left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from code_common.errors import InputError
from code_common.inference.side_by_side import CAN_FORK, side_by_side

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system cannot fork")
PROJECT = Path(__file__).resolve().parents[2]
TASKS = [f"task {k}" for k in range(7)]


def children():
    """Processes that `side_by_side` has started and that are still there."""
    return multiprocessing.active_children()


@pytest.mark.parametrize("processes", [1, 2, 3, 20])
def test_every_task_is_done_once(processes):
    done = list(side_by_side(TASKS, lambda task: (len(task), os.getpid()), processes))
    assert sorted(task for task, _ in done) == TASKS
    assert {length for _, (length, _) in done} == {6}
    assert len({pid for _, (_, pid) in done}) == min(processes, len(TASKS))


def test_no_task_is_done_and_none_given():
    assert list(side_by_side([], len, 4)) == []


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    def cores_and_threads(_):
        import torch

        return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()

    assert dict(side_by_side(TASKS[:3], cores_and_threads, 3)) == dict.fromkeys(TASKS[:3], ("2", 1))


def test_a_free_process_takes_the_next_task():
    """A long task does not hold up those that would come after it."""
    order = [task for task, _ in side_by_side(TASKS, lambda t: time.sleep(t == TASKS[0]), 2)]
    assert order[-1] == TASKS[0]


@pytest.mark.parametrize("error", [InputError("a.png: no image"), KeyError("x")])
def test_the_error_of_a_task_is_raised_here(error):
    def fail(task):
        if task == TASKS[2]:
            raise error

    with pytest.raises(type(error), match=str(error)):
        list(side_by_side(TASKS, fail, 2))
    assert not children()


def test_a_process_that_is_killed_is_told():
    def die(task):
        if task == TASKS[3]:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="killed while it did task 3 .out of memory"):
        list(side_by_side(TASKS, die, 2))
    assert not children()


def test_processes_end_with_whoever_no_longer_asks():
    results = side_by_side(TASKS, len, 2)
    next(results)
    results.close()
    assert not children()


def test_processes_end_where_the_first_one_is_killed(tmp_path):
    """It cannot tell them; they hear that nobody is there."""
    code = (
        "import os, pathlib, signal, sys, time\n"
        "from code_common.inference.side_by_side import side_by_side\n"
        "def do(task):\n"
        "    pids = pathlib.Path(sys.argv[1])\n"
        "    (pids / str(os.getpid())).touch()\n"
        "    while len(list(pids.iterdir())) < 2: time.sleep(0.01)\n"
        "for _ in side_by_side(list('abcdef'), do, 2): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=PROJECT, check=False)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    for _ in range(100):
        pids = [pid for pid in pids if is_running(pid)]
        if not pids:
            return
        time.sleep(0.1)
    raise AssertionError(f"{pids} are left")


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_are_ended_at_any_moment():
    """Also when they have just begun, and a handler of this process is still theirs."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        for _ in range(30):
            results = side_by_side(TASKS[:2], fail_at_once, 2)
            with pytest.raises(InputError):
                list(results)
            assert not children()
    finally:
        signal.signal(signal.SIGTERM, before)


def fail_at_once(task):
    if task == TASKS[1]:
        raise InputError("no")
    time.sleep(0.01)
