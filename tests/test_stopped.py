"""A script that is stopped ends in one line, at once, and leaves nothing running."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import PROJECT, heed_signals
from test_command_lines import SCRIPTS

# Python that stands for the environment's: a script of the project only waits to be stopped.
WAITING_PYTHON = """#!/bin/bash
case "$1" in
  *.py) exec REAL -c "{code}" ;;
  *) exec REAL "$@" ;;
esac
"""
WAIT = (
    "import time; from code_common.errors import run_script; "
    "run_script(lambda: (print('works', flush=True), time.sleep(60)))"
)


@pytest.fixture
def run_sh(tmp_path):
    """run.sh in a session of its own, whose first script waits; as (process, line to expect)."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(WAITING_PYTHON.format(code=WAIT).replace("REAL", sys.executable))
    python.chmod(0o755)
    environment = {**os.environ, "VIRTUAL_ENV": str(python.parents[1]), "PYTHONPATH": str(PROJECT)}
    command = ["bash", PROJECT / "run.sh", "--dataset", "a b", "--restart"]
    child = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    yield child
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to bash", "to all"])
def test_run_sh_ends_its_script_too(run_sh, number, send):
    """Whether bash alone gets the signal (kill) or all do (Ctrl-C)."""
    assert run_sh.stdout.readline() == "works\n"
    send(run_sh.pid, number)
    output, error = run_sh.communicate()  # ends when the last process that may write has ended
    assert run_sh.returncode == 130 and output == ""
    go_on = rf"stopped; to go on from here: bash {PROJECT}/run.sh --dataset a\ b --restart"
    assert error == f"\n{go_on}\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(run_sh.pid, 0)


# Sends a signal to its own process where a script first imports what takes long.
IMPORT_AND_STOP = """
import os, runpy, signal, sys
number, heavy = int(sys.argv[1]), ("numpy", "torch", "cv2", "PIL")
sys.argv = sys.argv[2:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            try:
                os.kill(os.getpid(), number)
                for _ in range(1000): pass
            except BaseException:
                sys.exit("an import caught it")

sys.meta_path.insert(0, Stop())
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# What a script cannot do without.
NEEDED = {
    "code_detection/predict.py": "--model m --images i --out o",
    "code_seg/predict.py": "--model m --images i --out o",
    "data/import_labels.py": "points --data-dir d --source s",
    "tools/compare.py": "--runs r --out o",
    "tools/export_model.py": "--run r",
    "tools/report.py": "--root-save-dir r --dataset d --ratio 1",
    "tools/score.py": "--images i --labels l --predicted p --out o",
    "tools/sweep.py": "--table t --out o",
}


# These read their command line last; their imports take no time to speak of.
QUICK = {"data/make_sample.py", "data/make_split.py", "docs/make.py"}


@pytest.mark.parametrize("script", sorted(set(SCRIPTS) - QUICK))
def test_a_script_is_stopped_while_it_imports(script):
    number = signal.SIGTERM if len(script) % 2 else signal.SIGINT
    command = [sys.executable, "-c", IMPORT_AND_STOP, str(int(number)), PROJECT / script]
    done = subprocess.run(
        [*command, *NEEDED.get(script, "").split()], capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.count("\n") == 2 and "stopped; to go on from here: " in done.stderr


def test_a_signal_that_is_ignored_stays_so():
    """As after nohup."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from code_common.errors import run_script\n"
        "run_script(lambda: os.kill(os.getpid(), signal.SIGHUP))\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == "went on\n"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_adds_no_traceback(number):
    """As where a whole group is stopped, and run.sh tells its scripts to end, too."""
    code = (
        "import atexit, os, signal\n"
        f"signal.signal(signal.{number}, signal.default_int_handler)\n"  # not ignored, as by nohup
        "from code_common.errors import run_script\n"
        f"stop = lambda: os.kill(os.getpid(), signal.{number})\n"
        "atexit.register(stop)\n"
        "run_script(stop)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr.count("\n") == 2, done.stderr
