"""Nothing is lost: killed at any moment, on a full disk, on one that is read-only."""

import filecmp
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, TINY, make_dataset

from code_common.errors import InputError
from code_common.files.reading import read_json, read_table
from code_common.learning.checkpoints import load_state
from code_common.steps import _lock

KILLABLE = str(PROJECT / "tests" / "killable.py")
TIMES = {"seconds", "images_per_s", "data_share", "forward_share", "backward_share"}


def stages(tmp_path, out) -> tuple[list[str], list[str]]:
    common = [*TINY, "--data-root", tmp_path / "data", "--root-save-dir", out, "--val-every", 1]
    common = list(map(str, [*common, "--epochs", 3]))
    detection = [*common, "--rounds", "1", "--r1", "6", "--r2", "12", "--sigma", "1.5"]
    return detection, [*common, "--crf-epochs", "2", "--crf-sigma-xy", "3", "--merge-radius", "6"]


def run(command, **keywords):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, timeout=600,
        **keywords,
    )  # fmt: skip


def assert_equal(whole: Path, cut: Path) -> None:
    """Two run folders hold the same results; times apart."""
    files = {p.relative_to(whole) for p in whole.rglob("*") if p.is_file()}
    assert files == {p.relative_to(cut) for p in cut.rglob("*") if p.is_file()}
    assert sum(f.suffix == ".pt" for f in files) == 4
    for file in files:
        a, b = whole / file, cut / file
        if file.suffix == ".pt":
            one, two = load_state(a), load_state(b)
            assert (one["epoch"], one["score"]) == (two["epoch"], two["score"]), file
            own = one["network"], two["network"]
            assert all(own[0][k].equal(own[1][k]) for k in own[0] | own[1]), file
        elif file.name == "log.csv":
            one, two = read_table(a), read_table(b)
            assert all((one[k] == two[k]).all() for k in one.keys() - TIMES), file
        elif file.name != "options.json" and ".done" not in file.parts:
            assert filecmp.cmp(a, b, shallow=False), file


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_after_30_kills_both_stages_end_with_the_same_bits(tmp_path, seed):
    make_dataset(tmp_path / "data" / "tiny", train=3)
    for out, kills in (("whole", 0), ("cut", 30)):
        detection, seg = stages(tmp_path, tmp_path / out)
        done = run([sys.executable, KILLABLE, seed, kills, *detection, "--", *seg])
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"ended after {kills} kills" in done.stdout
        assert "Traceback" not in done.stderr
    assert_equal(tmp_path / "whole", tmp_path / "cut")


def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    """The limit on the size of a file stands for a full disk: it needs no rights, and is real."""
    make_dataset(tmp_path / "data" / "tiny")
    command = [sys.executable, PROJECT / "code_detection/main.py", *stages(tmp_path, tmp_path)[0]]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = run(command, preexec_fn=limit)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "round_0/best.pt" in done.stderr and "earlier results are intact" in done.stderr
    out = tmp_path / "tiny" / "ratio_0.5" / "repeat_1" / "detection"
    assert (out / "points" / "train0.csv").is_file() and not list(out.rglob("*.pt"))
    assert not list(out.rglob("*.tmp"))
    done = run(command)
    assert done.returncode == 0 and "prepare: done earlier" in done.stdout


@pytest.mark.parametrize(
    ("how", "told"), [("size=20m", "no space left on the disk"), ("ro", "the file system is read")]
)
def test_a_full_or_read_only_disk_is_told_in_one_line(tmp_path, how, told):
    mount = f"mount -t tmpfs -o {how} none {tmp_path / 'out'}"
    (tmp_path / "out").mkdir()
    if not shutil.which("unshare") or run(["unshare", "-rm", "sh", "-c", mount]).returncode:
        pytest.skip("no user namespaces to mount a small disk in")
    make_dataset(tmp_path / "data" / "tiny")
    script = [sys.executable, PROJECT / "code_detection/main.py"]
    command = [*script, *stages(tmp_path, tmp_path / "out")[0]]
    kept = f"cp -r {tmp_path / 'out'} {tmp_path / 'kept'}"
    done = run(["unshare", "-rm", "sh", "-c", f'{mount} && "$@"; s=$?; {kept}; exit $s', "sh",
                *command])  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not list((tmp_path / "kept").rglob("*.tmp"))
    if how != "ro":
        options = (tmp_path / "kept").rglob("options.json")
        assert read_json(next(options))["options"]["dataset"] == "tiny"


def test_two_processes_never_work_in_one_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("code_common.steps.LOCK_PATIENCE_S", 0.5)
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1])\n"
               "from code_common.steps import _lock; from pathlib import Path\n"
               "lock = _lock(Path(sys.argv[2])); print('locked', flush=True); input()",
               PROJECT, tmp_path]  # fmt: skip
    other = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match="another process is working in this run folder"):
        _lock(tmp_path)
    other.kill()
    other.wait()
    _lock(tmp_path)  # free again, without anyone having tidied up
