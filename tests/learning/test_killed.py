"""Nothing is lost: killed at any moment, on a full disk, on one that is read-only."""

import filecmp
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, RUN, both_stages, make_dataset
from processes import run, script

from code_common.errors import InputError
from code_common.files.reading import read_json, read_table
from code_common.files.run_folder import points_path
from code_common.learning.checkpoints import load_state
from code_common.runs.steps import _lock

KILLABLE = PROJECT / "tests" / "killable.py"
TRAININGS = 4  # two rounds of stage 1, two phases of stage 2
TIMES = {"seconds", "images_per_s", "data_share", "forward_share", "backward_share"}
MEGABYTE = 1 << 20
# Takes the lock of a run folder and holds it until it is killed.
HOLD_LOCK = """
import sys
from pathlib import Path
from code_common.runs.steps import _lock

lock = _lock(Path(sys.argv[1]))
print("locked", flush=True)
input()
"""


def stages(home, out) -> tuple[list, list]:
    """The options of both stages on the data in `home`, whose results go to `out`."""
    more = ["--root-save-dir", out, "--val-every", 1, "--epochs", 3]
    detection, segmentation = both_stages(home, *more)
    return detection, [*segmentation, "--crf-epochs", 2]


def files_in(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def assert_same_checkpoint(a: Path, b: Path) -> None:
    one, two = load_state(a), load_state(b)
    assert (one["epoch"], one["score"]) == (two["epoch"], two["score"]), a
    weights, others = one["network"], two["network"]
    assert all(weights[name].equal(others[name]) for name in weights | others), a


def assert_same_log(a: Path, b: Path) -> None:
    one, two = read_table(a), read_table(b)
    assert all((one[name] == two[name]).all() for name in one.keys() - TIMES), a


def assert_same_results(whole: Path, cut: Path) -> None:
    """Two folders of runs hold the same results; times apart."""
    files = files_in(whole)
    assert files == files_in(cut)
    assert sum(file.suffix == ".pt" for file in files) == TRAININGS
    for file in files:
        a, b = whole / file, cut / file
        if file.suffix == ".pt":
            assert_same_checkpoint(a, b)
        elif file.name == "log.csv":
            assert_same_log(a, b)
        elif file.name != "options.json" and ".done" not in file.parts:
            assert filecmp.cmp(a, b, shallow=False), file


@pytest.mark.parametrize(("seed", "count"), [(1, 6), pytest.param(2, 30, marks=pytest.mark.slow)])
def test_after_kills_both_stages_end_with_the_same_bits(tmp_path, seed, count):
    make_dataset(tmp_path / "data" / "tiny", train=3)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out, kills in ((whole, 0), (cut, count)):
        detection, segmentation = stages(tmp_path, out)
        command = [sys.executable, KILLABLE, seed, kills, *detection, "--", *segmentation]
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"ended after {kills} kills" in done.stdout
        assert "Traceback" not in done.stderr
    assert_same_results(whole, cut)


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, MEGABYTE))


def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    """The limit on the size of a file stands for a full disk: it needs no rights, and is real."""
    make_dataset(tmp_path / "data" / "tiny")
    command = script("code_detection/main.py", *stages(tmp_path, tmp_path / "out")[0])
    done = run(command, preexec_fn=limit_file_size)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "round_0/best.pt" in done.stderr and "earlier results are intact" in done.stderr
    folder = tmp_path / "out" / RUN / "detection"
    assert points_path(folder, "train0").is_file() and not list(folder.rglob("*.pt"))
    assert not list(folder.rglob("*.tmp"))

    done = run(command)
    assert done.returncode == 0 and "prepare: done earlier" in done.stdout


@pytest.mark.parametrize(
    ("mount_option", "message"),
    [("size=2m", "no space left on the disk"), ("ro", "the file system is read-only")],
)
def test_a_full_or_read_only_disk_is_told_in_one_line(tmp_path, mount_option, message):
    out, kept = tmp_path / "out", tmp_path / "kept"
    out.mkdir()
    mount = f"mount -t tmpfs -o {mount_option} none {out}"
    if not shutil.which("unshare") or run(["unshare", "-rm", "sh", "-c", mount]).returncode:
        pytest.skip("no user namespaces to mount a small disk in")
    make_dataset(tmp_path / "data" / "tiny")
    command = script("code_detection/main.py", *stages(tmp_path, out)[0])
    # The small disk is gone when its processes are: what it held is kept beside it.
    on_small_disk = f'{mount} && "$@"; status=$?; cp -r {out} {kept}; exit $status'
    done = run(["unshare", "-rm", "sh", "-c", on_small_disk, "sh", *command])
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not list(kept.rglob("*.tmp"))
    if mount_option != "ro":
        options = next(kept.rglob("options.json"))
        assert read_json(options)["options"]["dataset"] == "tiny"


def test_two_processes_never_work_in_one_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("code_common.runs.steps.LOCK_PATIENCE_S", 0.5)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match="another process is working in this run folder"):
        _lock(tmp_path)
    other.kill()
    other.wait()
    _lock(tmp_path)  # free again, without anyone having tidied up
