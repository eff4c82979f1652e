"""Several processes that work as one: the same weights, one voice, a stop that leaves nothing."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
from conftest import PROJECT, RUN, both_stages, heed_signals, make_dataset
from processes import run, script

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import best_path, metrics_path, results_folder
from code_common.learning.checkpoints import load_state
from code_common.learning.crops import EpochBatches
from code_common.learning.distributed import (
    _free_port,
    add_up,
    from_all,
    from_first,
    launch,
    local_rank,
    work_together,
)

TOGETHER = PROJECT / "tests" / "train_together.py"
STEPS = 5  # of stage 1 without self-training rounds
TWO_PROCESSES = ("--gpus", "0", "1")  # on a CPU, too


def test_two_processes_give_the_weights_of_one(tmp_path):
    """With dropout, batch norms, the losses of both stages and a last step of one crop."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    torchrun = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
    for command in ([TOGETHER, alone], [*torchrun, TOGETHER, both]):
        done = run([sys.executable, *command])
        assert done.returncode == 0, done.stderr
    one, two = (load_state(best_path(folder))["network"] for folder in (alone, both))
    weights = [name for name, value in one.items() if value.dtype.is_floating_point]
    assert len(weights) > 100
    for name in weights:
        assert (one[name] - two[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize(("count", "batch", "size"), [(7, 3, 2), (9, 4, 3), (5, 8, 2), (1, 2, 4)])
def test_the_processes_share_the_batches_of_one(count, batch, size):
    seed = 5
    whole = list(EpochBatches(count, batch, seed))
    parts = [list(EpochBatches(count, batch, seed, rank, size)) for rank in range(size)]
    for step, keys in enumerate(whole):
        shares = [part[step] for part in parts]
        assert sorted(key for share in shares for key in share) == sorted(keys)
        assert len(keys) == EpochBatches(count, batch, seed).whole(step)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE must be a whole number from 1 to 99999, not abc"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK must be"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK must be"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK must be a whole number from 0 to 1, not 2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "99999"}, "MASTER_PORT must be"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "29400"}, "MASTER_ADDR is not set"),
    ],
)
def test_an_odd_environment_is_told(environment, message, monkeypatch):
    """Left over from another program, or from a job that started no processes."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message) as error:
        local_rank()
        work_together(torch.device("cpu"), lambda: None)
    assert "unset WORLD_SIZE" in str(error.value)


def test_empty_variables_are_none(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
    assert local_rank() is None and work_together(torch.device("cpu"), lambda: 3) == 3


WAITING = """
import torch, torch.distributed
from code_common.learning.distributed import work_together
rendezvous = torch.distributed.rendezvous
def tell(*arguments, **named):
    print("waits", flush=True)
    return rendezvous(*arguments, **named)
torch.distributed.rendezvous = tell
work_together(torch.device("cpu"), lambda: None)
"""


def test_a_process_that_waits_for_others_can_be_stopped():
    variables = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    variables["MASTER_PORT"] = str(_free_port())
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, cwd=PROJECT,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert waiting.stdout.readline() == b"waits\n"
    waiting.terminate()
    assert waiting.wait(60) == -signal.SIGTERM


def test_processes_that_never_come_are_not_waited_for_all_night(monkeypatch):
    monkeypatch.setattr("code_common.learning.distributed.START_TIMEOUT", timedelta(seconds=1))
    variables = {
        "WORLD_SIZE": 2,
        "RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(InputError, match="not all of WORLD_SIZE=2 processes came"):
        work_together(torch.device("cpu"), lambda: None)


def test_alone_nothing_is_sent():
    value = torch.ones(3)
    assert add_up(value) is value and from_first("x") == "x" and from_all(2) == [2]


def detection(home, *more: str) -> list[str]:
    """Stage 1, without self-training, as a command."""
    options, _ = both_stages(home, *more, rounds=0)
    return script("code_detection/main.py", *options)


@pytest.mark.slow
def test_a_stage_on_two_processes_and_one_after_it(tmp_path):
    make_dataset(tmp_path / "data" / "tiny", train=3, test=3)
    done = run(detection(tmp_path, *TWO_PROCESSES))
    assert done.returncode == 0, done.stderr
    numbers = [line[:5] for line in done.stdout.splitlines() if line.startswith("[")]
    assert numbers == [f"[{step}/{STEPS}]" for step in range(1, STEPS + 1)]
    metrics = read_json(metrics_path(results_folder(tmp_path / "out" / RUN / "detection")))
    assert len(metrics["images"]) == 3

    what_two_have_done = run(detection(tmp_path))
    assert what_two_have_done.stdout.count("skipped") == STEPS, what_two_have_done


def test_wrong_input_is_told_once(tmp_path):
    done = run(detection(tmp_path, *TWO_PROCESSES))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "tiny: no such folder" in done.stderr


def wait_until_none_is_left(session: int) -> None:
    """Wait for all processes of a session to end."""
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-s", str(session)], capture_output=True).returncode == 0:
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.2)


@pytest.mark.parametrize(("stop", "gpus"), [(signal.SIGINT, TWO_PROCESSES), (signal.SIGTERM, ())])
def test_a_stopped_run_says_how_to_go_on_and_leaves_no_process(tmp_path, stop, gpus):
    make_dataset(tmp_path / "data" / "tiny")
    endless = ["--epochs", "1000", "--val-every", "1", "--workers", "1"]
    child = subprocess.Popen(
        detection(tmp_path, *endless, *gpus),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    try:
        for line in child.stdout:
            if "epoch 1/1000" in line:
                break
        child.send_signal(stop)
        _, errors = child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    assert child.returncode == 130
    assert "to go on from here: " in errors and "--epochs 1000" in errors
    assert "Traceback" not in errors
    wait_until_none_is_left(child.pid)


def test_launch_stops_the_others_when_one_fails():
    code = "import os, sys, time; time.sleep(60 * (os.environ['RANK'] == '0')); sys.exit(3)"
    began = time.monotonic()
    assert launch(2, [sys.executable, "-c", code]) == 3
    assert time.monotonic() - began < 30
