"""Several processes that work as one: the same weights, one voice, a stop that leaves nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, TINY, make_dataset

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.inference.shards import Results, choose_shard, do_share
from code_common.learning.checkpoints import load_state
from code_common.learning.crops import EpochBatches
from code_common.learning.distributed import add_up, from_all, from_first, launch

TOGETHER = str(PROJECT / "tests" / "train_together.py")


def test_two_processes_give_the_weights_of_one(tmp_path):
    """With dropout, batch norms, the losses of both stages and a last step of one crop."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in (
        [sys.executable, TOGETHER, alone],
        [*torchrun, "--nproc_per_node", "2", TOGETHER, both],
    ):
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    one, two = (load_state(f / "best.pt")["network"] for f in (alone, both))
    start = {k: v for k, v in one.items() if v.dtype.is_floating_point}
    assert len(start) > 100
    for name, value in start.items():
        assert (value - two[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize(("count", "batch", "size"), [(7, 3, 2), (9, 4, 3), (5, 8, 2), (1, 2, 4)])
def test_the_processes_share_the_batches_of_one(count, batch, size):
    whole = list(EpochBatches(count, batch, 5))
    parts = [list(EpochBatches(count, batch, 5, rank, size)) for rank in range(size)]
    for step, keys in enumerate(whole):
        shares = [part[step] for part in parts]
        assert sorted(k for share in shares for k in share) == sorted(keys)
        assert len(keys) == EpochBatches(count, batch, 5).whole(step)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_sent():
    value = torch.ones(3)
    assert add_up(value) is value and from_first("x") == "x" and from_all(2) == [2]


def detection(tmp_path, *more, gpus=("--gpus", "0", "1")):
    return [
        sys.executable, str(PROJECT / "code_detection" / "main.py"), *TINY,
        "--data-root", str(tmp_path / "data"), "--root-save-dir", str(tmp_path / "out"),
        "--rounds", "0", "--r1", "6", "--r2", "12", "--sigma", "1.5", *gpus, *more,
    ]  # fmt: skip


def run(command, **keywords):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=300, **keywords
    )


def test_a_stage_on_two_processes_and_one_after_it(tmp_path):
    make_dataset(tmp_path / "data" / "tiny", train=3, test=3)
    done = run(detection(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:5] for line in lines if line[0] == "["] == [f"[{k}/5]" for k in (1, 2, 3, 4, 5)]
    out = tmp_path / "out" / "tiny" / "ratio_0.5" / "repeat_1" / "detection"
    assert len(read_json(out / "test" / "metrics.json")["images"]) == 3
    # What two have done, one need not do again.
    again = run(detection(tmp_path, gpus=()))
    assert again.stdout.count("skipped") == 5, again.stdout + again.stderr


def test_wrong_input_is_told_once(tmp_path):
    done = run(detection(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "tiny: no such folder" in done.stderr


@pytest.mark.parametrize(
    ("stop", "gpus"), [(signal.SIGINT, ("--gpus", "0", "1")), (signal.SIGTERM, ())]
)
def test_a_stopped_run_says_how_to_go_on_and_leaves_no_process(tmp_path, stop, gpus):
    make_dataset(tmp_path / "data" / "tiny")
    endless = ["--epochs", "1000", "--val-every", "1", "--workers", "1"]
    command = detection(tmp_path, *endless, gpus=gpus)
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # These tests may themselves run in the background, where a shell lets SIGINT be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        for line in child.stdout:
            if "epoch 1/1000" in line:
                break
        child.send_signal(stop)
        _, told = child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    assert child.returncode == 130
    assert "to go on from here: python" in told and "--epochs 1000" in told
    assert "Traceback" not in told
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-s", str(child.pid)], capture_output=True).returncode == 0:
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.2)


def test_launch_stops_the_others_when_one_fails(tmp_path):
    code = "import os, sys, time; time.sleep(60 * (os.environ['RANK'] == '0')); sys.exit(3)"
    began = time.monotonic()
    assert launch(2, [sys.executable, "-c", code]) == 3
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("", {}, (0, 1)),
        ("0/1", {}, (0, 1)),
        ("3/8", {"SLURM_ARRAY_TASK_ID": "1"}, (3, 8)),
        ("", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1",
              "SLURM_ARRAY_TASK_COUNT": "10"}, (4, 10)),
        ("", {"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_MIN": "2",
              "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"}, (2, 4)),
    ],
)  # fmt: skip
def test_shards(text, environment, expected):
    assert choose_shard(text, environment) == expected


@pytest.mark.parametrize("text", ["8/8", "1", "a/b", "-1/4", "1/0", "1/2/3"])
def test_wrong_shards(text):
    with pytest.raises(InputError, match="--shard must be I/N"):
        choose_shard(text, {})


def make_images(tmp_path, names, calls):
    def work(name):
        calls.append(name)
        if name == "bad":
            raise InputError("bad.png: broken")
        path = tmp_path / "out" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        return [path], {"length": len(name)}

    images = {}
    for name in names:
        source = tmp_path / f"{name}.png"
        if not source.exists():
            source.write_text(name)
        images[name] = ((source, None), lambda name=name: work(name))
    return images


def test_shards_together_do_every_image_once(tmp_path):
    names, calls = [f"n{k}" for k in range(7)], []
    images = make_images(tmp_path, names, calls)
    results = Results(tmp_path / "out", "key")
    done = [do_share(results, images, (k, 3), "t") for k in range(3)]
    assert sorted(calls) == names
    assert [len(d) for d in done] == [3, 5, 7] and done[-1]["n0"] == {"length": 2}
    do_share(results, images, (0, 1), "t")
    assert len(calls) == 7


def test_what_changed_is_done_again(tmp_path):
    calls: list[str] = []
    images = make_images(tmp_path, ["a", "b", "c"], calls)
    do_share(Results(tmp_path / "out", "key"), images, (0, 1), "t")
    (tmp_path / "a.png").write_text("other")  # an input
    (tmp_path / "out" / "b.txt").unlink()  # an output
    do_share(Results(tmp_path / "out", "key"), images, (0, 1), "t")
    assert calls == ["a", "b", "c", "a", "b"]
    do_share(Results(tmp_path / "out", "other weights"), images, (0, 1), "t")
    assert calls[5:] == ["a", "b", "c"]


def test_a_broken_image_does_not_stop_the_others(tmp_path):
    calls: list[str] = []
    images = make_images(tmp_path, ["a", "bad", "c"], calls)
    with pytest.raises(InputError, match="^bad.png: broken$"):
        do_share(Results(tmp_path / "out", "key"), images, (0, 1), "t")
    assert calls == ["a", "bad", "c"] and Path(tmp_path / "out" / "c.txt").is_file()
