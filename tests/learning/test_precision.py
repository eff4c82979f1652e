"""--precision auto is the faster number format, measured once and then remembered."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import PROJECT

from code_common.learning import precision
from code_common.learning.precision import choose_precision, measured_gain, memory_folder

CPU = torch.device("cpu")


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Lets a test say how long float32 and bfloat16 take; returns a list of the measurements."""
    gains, made = [2.0], []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_gain", lambda: made.append(gains[0]) or gains[0])
    return gains, made


@pytest.mark.parametrize(("name", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_precision_that_is_asked_for_is_taken_and_not_measured(measured, name, expected):
    assert choose_precision(name, CPU) == expected
    assert not measured[1]


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(1.9, torch.bfloat16), (1.0, torch.float32), (0.2, torch.float32)],
)
def test_auto_takes_the_faster_one_and_says_so(measured, capsys, gain, expected):
    measured[0][0] = gain
    assert choose_precision("auto", CPU) == expected
    said = capsys.readouterr().err
    assert str(gain) in said and str(expected).removeprefix("torch.") in said
    assert str(memory_folder()) in said and said.count("\n") == 1


def test_what_was_measured_decides_later_calls(measured, capsys):
    choose_precision("auto", CPU)
    measured[0][0] = 0.5  # a neighbour, or chance
    capsys.readouterr()
    assert choose_precision("auto", CPU) == torch.bfloat16
    assert measured[1] == [2.0] and not capsys.readouterr().err


def test_another_processor_or_torch_is_measured_by_itself(measured, monkeypatch):
    choose_precision("auto", CPU)
    measured[0][0] = 0.5
    monkeypatch.setattr(precision, "processor", lambda: "an older one")
    assert choose_precision("auto", CPU) == torch.float32
    known = json.loads((memory_folder() / "bfloat16.json").read_text())
    assert sorted(known.values()) == [0.5, 2.0]


@pytest.mark.parametrize("content", ["", "[1]", '{"AMD": "fast"}', "\0\1", '{"a": NaN}'])
def test_a_damaged_memory_is_made_again(measured, content):
    memory_folder().mkdir(parents=True)
    path = memory_folder() / "bfloat16.json"
    path.write_text(content)
    assert choose_precision("auto", CPU) == torch.bfloat16
    assert list(json.loads(path.read_text()).values()) == [2.0]


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(measured, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    assert choose_precision("auto", CPU) == torch.bfloat16
    assert "not kept" in capsys.readouterr().err


def test_the_measurement_is_one_of_this_machine_and_leaves_the_threads(tmp_path):
    threads = torch.get_num_threads()
    assert 0.01 < measured_gain(tmp_path) < 100
    assert torch.get_num_threads() == threads


def test_processes_may_be_forked_after_it(tmp_path):
    """A pool of threads that the measurement started would hang the children of a fork."""
    script = (
        "import multiprocessing, sys, torch\n"
        "from pathlib import Path\n"
        "from code_common.learning.precision import measured_gain\n"
        "torch.set_num_threads(2)\n"
        "measured_gain(Path(sys.argv[1]))\n"
        "def child():\n"
        "    torch.ones(1, 64, 99, 99).exp().sum()\n"
        "process = multiprocessing.get_context('fork').Process(target=child)\n"
        "process.start(); process.join(60)\n"
        "sys.exit(process.exitcode if process.exitcode is not None else 9)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
