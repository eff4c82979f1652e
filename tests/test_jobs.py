"""run.sh --jobs: repeats side by side. Their order, threads, words, failures, and how they end."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import (
    PROJECT,
    RUN,
    TINY,
    TINY_DETECTION,
    TINY_SEG,
    heed_signals,
    link_tree,
    place,
    run_process,
)

from code_common.files.data_set import load_split
from code_common.runs.estimate import Estimate
from code_common.threads import allotted_cores
from data import check

# Python that stands for the environment's. A script is a line in the log, with its threads, when it
# begins and when it ends; between, it does what the test says for "STAGE REPEAT".
FAKE_PYTHON = """#!/bin/bash
case "$1" in
  *.py) ;;
  *) exec REAL "$@" ;;
esac
words="$* " restart="" step="${1##*/}"
if [[ $1 == */code_*/main.py ]]; then
  stage="${1%/main.py}" repeat="${words##*--repeat }"
  repeat="${repeat%% *}" step="${stage##*/code_} ${repeat%% *}"
fi
if [[ $words == *" --restart "* ]]; then restart=", restart"; fi
echo "begin $step: ${OMP_NUM_THREADS:-no} threads$restart" >> LOG
case "$step" in
  DO
esac
echo "end $step" >> LOG
"""


class Runs:
    """run.sh with a Python that only notes what it is asked to do."""

    def __init__(self, home: Path):
        self.home, self.log = home, home / "log"
        self.python = home / "env" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        (home / "out" / "tiny").mkdir(parents=True)

    def command(self, do: str, *more: object) -> list[str]:
        """A call of run.sh. do: branches of a case of bash, such as `"seg 2") exit 3 ;;`."""
        text = FAKE_PYTHON.replace("DO", do or "*) ;;")
        self.python.write_text(text.replace("REAL", sys.executable).replace("LOG", str(self.log)))
        self.python.chmod(0o755)
        self.log.write_text("")
        place = ["--dataset", "tiny", "--root-save-dir", self.home / "out"]
        return ["bash", str(PROJECT / "run.sh"), *map(str, [*place, *more])]

    def environment(self, threads: str | None = None) -> dict[str, str]:
        """With OMP_NUM_THREADS as a user has set it, or not."""
        own = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        given = {} if threads is None else {"OMP_NUM_THREADS": threads}
        return {**own, "VIRTUAL_ENV": str(self.python.parents[1]), **given}

    def run(self, do: str, *more: object, code: int = 0, threads: str | None = None):
        """What is printed by a call that ends with status `code`."""
        done = subprocess.run(
            self.command(do, *more), env=self.environment(threads), capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def logged(self, word: str) -> list[str]:
        """Lines of the log that begin with a word, without it."""
        lines = self.log.read_text().splitlines()
        return [line.removeprefix(f"{word} ") for line in lines if line.startswith(word)]


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path)


# A step that waits for another one to begin.
WAITS = '"detection 1") until grep -q "begin detection {}" LOG; do sleep 0.02; done ;;'


def test_a_repeat_that_ends_makes_room_for_the_next(runs):
    """The first is still at work where the third begins, and never are there three."""
    runs.run(WAITS.format(3), "--repeats", 4, "--jobs", 2)
    begun = runs.logged("begin")
    assert begun[0].startswith("check.py") and begun[-1].startswith("report.py")
    assert len(begun) == 2 + 4 * 2
    at_work = most = 0
    for line in runs.log.read_text().splitlines():
        at_work += 1 if line.startswith("begin") else -1
        most = max(most, at_work)
    assert most == 2


@pytest.mark.parametrize(
    ("jobs", "given", "threads"),
    [
        (2, None, lambda cores: max(1, cores // 2)),
        (64, None, lambda cores: max(1, cores // 64)),
        (2, "3", lambda _: 3),
        (2, "", lambda cores: max(1, cores // 2)),
        (1, None, lambda _: "no"),
    ],
)
def test_each_job_has_its_share_of_the_cores(runs, jobs, given, threads):
    runs.run("", "--repeats", 2, f"--jobs={jobs}", threads=given)
    expected = f"{threads(allotted_cores())} threads"
    stages = [line for line in runs.logged("begin") if "report" not in line]
    assert len(stages) == 5 and all(line.endswith(expected) for line in stages)


@pytest.mark.parametrize("jobs", ["0", "65", "08", "x", "1.5", "-1"])
def test_a_wrong_number_of_jobs_is_one_line(runs, jobs):
    done = runs.run("", f"--jobs={jobs}", code=2)
    assert done.stderr == f"error: --jobs must be a whole number from 1 to 64, not {jobs}\n"
    assert not runs.logged("begin")


def test_every_line_of_a_job_begins_with_its_repeat(runs):
    """Of both streams; of a bar only its last state, and a last line without an end, too."""
    says = '"seg "*) echo "out  of $repeat"; printf "10%%\\r100%%\\nlast" >&2 ;;'
    done = runs.run(says, "--repeats", 2, "--jobs", 2)
    for repeat in (1, 2):
        own = [line for line in done.stdout.splitlines() if line.startswith(f"[repeat {repeat}] ")]
        title = f"== tiny, ratio 0.10, repeat {repeat} of 2"
        said = [f"{title}: detection", f"{title}: segmentation", f"out  of {repeat}"]
        assert own == [f"[repeat {repeat}] {line}" for line in said]
    assert len(done.stdout.splitlines()) == 6
    expected = [f"[repeat {k}] {line}" for k in (1, 2) for line in ("100%", "last")]
    assert sorted(done.stderr.splitlines()) == sorted(expected)


def test_one_job_prints_as_ever(runs, monkeypatch):
    monkeypatch.setenv("LABEL", "a variable of the user")
    done = runs.run('"seg "*) echo said ;;', "--repeats", 2)
    assert done.stdout.splitlines()[2::3] == ["said", "said"] and "[repeat" not in done.stdout


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (1, "about 2.0 h for 4 repeats"),
        (2, "about 60 min for 4 repeats, 2 at a time"),
        (9, "about 30 min for 4 repeats, 4 at a time"),
    ],
)
def test_the_plan_counts_on_the_jobs(dataset, tmp_path, monkeypatch, jobs, said):
    monkeypatch.setattr(check, "estimate", lambda *_: Estimate(7200.0, 0.0, 0, 8))
    given = [*TINY, *place(tmp_path), "--repeats", 4, "--jobs", jobs]
    request = check.read_arguments(list(map(str, given)))
    timing, _ = check.plan_run(load_split(request.detection.data_dir), request)
    assert timing.message == said


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_closed_output_is_no_fault(runs, jobs):
    command = shlex.join(runs.command('"seg "*) echo x ;;', "--repeats", 2, "--jobs", jobs))
    done = subprocess.run(
        ["bash", "-c", f"{command} >&-"], env=runs.environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "report.py" in runs.logged("end")


def test_a_repeat_that_fails_does_not_stop_the_others(runs):
    """Repeat 3 fails first, and the status is that of the first one."""
    fails = (
        '"seg 3") echo "error: x" >&2; exit 4 ;; '
        '"detection 2") until grep -q "begin seg 3" LOG; do sleep 0.02; done; exit 3 ;;'
    )
    done = runs.run(fails, "--repeats", 5, "--jobs", 2, code=3)
    ended = runs.logged("end")
    assert [f"seg {k}" in ended for k in (1, 2, 3, 4, 5)] == [True, False, False, True, True]
    assert "report.py" not in ended
    assert done.stderr.splitlines() == [
        "[repeat 3] error: x",
        "error: of 5 repeats failed: 2 3. The same command goes on",
    ]
    runs.run("", "--repeats", 5, "--jobs", 2)
    assert "report.py" in runs.logged("end")


def test_a_restart_goes_on_with_what_each_job_has_finished(runs):
    def started(do: str, code: int) -> list[str]:
        given = ["--repeats", 3, "--jobs", 2, "--restart"]
        runs.run(do, *given, code=code)
        steps = [line.split(":")[0] for line in runs.logged("begin") if "restart" in line]
        return sorted(set(steps) - {"check.py"})

    every = sorted(f"{stage} {k}" for stage in ("detection", "seg") for k in (1, 2, 3))
    assert started('"seg 2") exit 3 ;;', 3) == every
    assert started("", 0) == ["seg 2"]
    assert started("", 0) == every


def ended(group: int) -> bool:
    """Whether all processes of a group end, and are reaped, within seconds."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to bash", "to all"])
def test_a_signal_ends_all_jobs(runs, number, send):
    """Whether bash alone gets it or all do: no process is left, and one line tells how to go on."""
    waits = '"seg "*) echo works; exec REAL -c "import time; time.sleep(60)" ;;'
    command = runs.command(waits, "--repeats", 3, "--jobs", 2)
    process = subprocess.Popen(
        command,
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    try:
        works = 0
        while works < 2:
            works += process.stdout.readline().endswith("works\n")
        send(process.pid, number)
        _, error = process.communicate()  # ends when the last process that may write has ended
        assert process.returncode == 130
        assert error == f"\nstopped; to go on from here: {' '.join(command)}\n"
        assert ended(process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_jobs_write_the_same_bytes_as_one_after_the_other(experiment, tmp_path):
    """At the same number of threads: all but what tells times and places."""
    link_tree(experiment.home / "data", tmp_path / "data")
    stages = ["--detection", *TINY_DETECTION, "--rounds", 1, "--seg", *TINY_SEG]
    given = [*TINY, *place(tmp_path), "--repeats", 2, "--jobs", 2, *stages]
    done = run_process("run.sh", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    def results(root: Path) -> dict[str, bytes]:
        files = [path for path in root.glob("repeat_*/**/*") if path.is_file()]
        timed = (".done", "options.json", "log.csv", ".lock")
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in files
            if not {path.name, path.parent.name} & set(timed)
        }

    ours, theirs = results((tmp_path / "out" / RUN).parent), results(experiment.root)
    assert len(ours) > 50 and set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
