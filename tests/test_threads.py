"""The cores that a process may use, and libraries that take no more."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from code_common import threads
from code_common.threads import Neighbours, allotted_cores, respect_cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 16 cores. Gives a function that puts a process into a control group."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    (tmp_path / "cgroup").write_text("")
    monkeypatch.setattr(threads, "MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)

    def put(line, **files):
        (tmp_path / "cgroup").write_text(line + "\n")
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return put


def test_all_cores_where_nothing_limits_them(machine):
    assert allotted_cores({}) == 16


def test_affinity_and_slurm_allow_fewer(machine, monkeypatch):
    assert allotted_cores({"SLURM_CPUS_PER_TASK": "6"}) == 6
    assert allotted_cores({"SLURM_CPUS_PER_TASK": "64"}) == 16
    assert allotted_cores({"SLURM_CPUS_PER_TASK": "all"}) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7, 9}, raising=False)
    assert allotted_cores({"SLURM_CPUS_PER_TASK": "6"}) == 4


@pytest.mark.parametrize(
    ("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 16), ("", 16)]
)
def test_the_quota_of_a_container(machine, quota, cores):
    """A part of a core is none: two threads on half a core each wait for one another."""
    machine("0::/", cpu_max=quota)
    assert allotted_cores({}) == cores


def test_the_smallest_quota_of_all_groups_around_counts(machine):
    machine("0::/user/job", user__cpu_max="300000 100000", user__job__cpu_max="max 100000")
    assert allotted_cores({}) == 3


def test_the_quota_of_the_older_control_groups(machine, tmp_path):
    machine("4:cpu,cpuacct:/docker/1")
    for name, text in (("quota", "700000"), ("period", "100000")):
        path = tmp_path / "cpu" / f"cpu.cfs_{name}_us"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert allotted_cores({}) == 7
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert allotted_cores({}) == 16


def test_what_the_user_has_set_stays():
    environment = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    respect_cores(environment)
    assert environment["OMP_NUM_THREADS"] == environment["OPENCV_FOR_THREADS_NUM"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE" and "GOMP_SPINCOUNT" not in environment


@pytest.mark.parametrize("given", ["2,1", " 2", "2 "])
def test_threads_within_threads_are_no_threads_of_opencv(given):
    """OpenCV takes one number, and OpenMP several; with anything else it ends in an error."""
    environment = {"OMP_NUM_THREADS": given}
    respect_cores(environment)
    assert environment == environment | {
        "OMP_NUM_THREADS": given, "OPENCV_FOR_THREADS_NUM": "2"
    }  # fmt: skip


@pytest.mark.parametrize("given", ["abc", "-1", "0", ""])
def test_a_number_of_threads_that_is_none_means_the_allotted_cores(given):
    environment = {"OMP_NUM_THREADS": given, "SLURM_CPUS_PER_TASK": "1"}
    respect_cores(environment)
    assert environment["OPENCV_FOR_THREADS_NUM"] == "1"


def test_torch_and_opencv_of_a_script_take_the_cores_of_its_job():
    """Both read the environment when they are loaded, so a script sets it before."""
    code = (
        "from code_common.config import read_command_line; from code_seg.options import Options\n"
        "read_command_line(Options, ''); import cv2, torch\n"
        "print(torch.get_num_threads(), cv2.getNumThreads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-pretrained"],
        env=environment | {"SLURM_CPUS_PER_TASK": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1"]


@pytest.fixture
def beside(machine, tmp_path, monkeypatch):
    """A function: the advice to `threads` threads, after ten seconds in which other programs and
    we used so many of four cores.
    """

    def advice(others: float, own: float, threads: int, took: float = 10.0) -> str:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 4, 5}, raising=False)
        clock, state, tick = [0.0], tmp_path / "stat", os.sysconf("SC_CLK_TCK")
        monkeypatch.setattr("time.monotonic", lambda: clock[0])
        monkeypatch.setattr("time.process_time", lambda: clock[0] * own)

        def write() -> None:
            ours = int(clock[0] * (others + own) * tick / 4)
            not_ours, idle = int(clock[0] * tick), int(clock[0] * 7 * tick)
            lines = ["cpu  9 9 9 9 9 9 9 9 0 0", f"cpu1 {not_ours} 0 0 0 0 0 0 0 0 0"]
            lines += [
                f"cpu{n} {ours // 2} 0 {ours - ours // 2} {idle} 5 0 0 0" for n in range(2, 6)
            ]
            state.write_text("\n".join([*lines, "intr 1 2 3", "ctxt 7"]))

        write()
        neighbours = Neighbours(state)
        clock[0] = took
        write()
        return neighbours.advice(threads)

    return advice


def test_threads_without_a_core_of_their_own_are_told(beside):
    assert beside(others=2, own=2, threads=4) == (
        "cores busy with other programs: 2.0 of 4, so 4 threads wait for each other; "
        "OMP_NUM_THREADS=2 may be faster"
    )
    assert "OMP_NUM_THREADS=1 " in beside(others=4, own=0.5, threads=4)


def test_threads_with_room_are_not_disturbed(beside):
    assert not beside(others=0, own=4, threads=4)
    assert not beside(others=0.3, own=3.6, threads=4)
    assert not beside(others=2, own=2, threads=2)
    assert not beside(others=4, own=0.5, threads=1)
    assert not beside(others=4, own=0.5, threads=4, took=1)


def test_no_advice_where_the_system_does_not_say_who_is_busy(machine, tmp_path):
    assert not Neighbours(tmp_path / "stat").advice(16)


def test_a_real_neighbour_is_seen(monkeypatch):
    monkeypatch.setattr("code_common.threads.LEAST_S", 0.5)
    if not hasattr(os, "sched_getaffinity") or not Path("/proc/stat").is_file():
        pytest.skip("this system does not say who is busy")
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {core})
    neighbours = Neighbours()
    code = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(2)
        assert "of 1, so 2 threads wait" in neighbours.advice(2)
    finally:
        busy.kill()
        busy.wait()
