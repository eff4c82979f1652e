"""Nothing is lost, nothing is stale: folders, restarts, changed inputs, odd systems and names."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PROJECT

from code_common.errors import InputError, run_script
from code_common.files import locks
from code_common.files.contents import files_fingerprint
from code_common.files.data_set import load_split, test_groups
from code_common.files.writing import printable, write_json, write_table
from code_common.learning import crops, hardware
from code_common.learning.checkpoints import load_encoder, load_state, network_of, save_network
from code_common.learning.encoders import ENCODERS
from code_common.learning.network import ResUNet
from code_common.options import PredictOptions
from code_common.runs.steps import Run, Step
from code_detection.options import Options
from data import check

test_groups.__test__ = False


def options(home: Path, **changes) -> Options:
    """Options of stage 1 for the tiny data set in home/data, with results in home/out."""
    values = {"dataset": "tiny", "data_root": home / "data", "root_save_dir": home / "out"}
    return Options(**values | {"device": "cpu"} | changes).resolved()


# Data set folders, and folders around or in them


@pytest.mark.parametrize(
    "place", ["data/tiny", "data/tiny/results", "data", "", "data/other", "data/tiny/../tiny"]
)
def test_a_run_folder_that_touches_the_data_is_refused(dataset, tmp_path, place):
    shutil.copytree(dataset, tmp_path / "data" / "other")
    with pytest.raises(InputError, match="--save-dir .* outside of the data"):
        options(tmp_path, save_dir=tmp_path / place)


def test_a_run_folder_is_refused_behind_a_link_too(dataset, tmp_path):
    (tmp_path / "link").symlink_to(dataset)
    with pytest.raises(InputError, match="--save-dir .* outside of the data"):
        options(tmp_path, save_dir=tmp_path / "link")


@pytest.mark.parametrize("place", ["data/tiny", "data/tiny/results", "data/other/results"])
def test_a_root_of_results_in_the_data_is_refused(dataset, tmp_path, place):
    shutil.copytree(dataset, tmp_path / "data" / "other")
    with pytest.raises(InputError, match="--root-save-dir .* outside of the data"):
        options(tmp_path, root_save_dir=tmp_path / place)


def test_results_may_lie_beside_the_data_sets(dataset, tmp_path):
    """One folder with all: data sets, and the experiments among them."""
    assert options(tmp_path, root_save_dir=tmp_path / "data" / "experiments").save_dir


def test_the_data_sets_own_folder_counts_where_it_is_given(dataset, tmp_path):
    with pytest.raises(InputError, match="--save-dir .* outside of the data"):
        options(tmp_path, data_root=tmp_path / "no", data_dir=dataset, save_dir=dataset / "run")


@pytest.mark.parametrize("name", ["save_dir", "root_save_dir"])
@pytest.mark.parametrize("place", ["", "."])
def test_the_present_folder_is_no_folder_of_results(tmp_path, name, place):
    flag = "--" + name.replace("_", "-")
    with pytest.raises(InputError, match=f"{flag} must be a folder for results"):
        options(tmp_path, **{name: Path(place)})


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/abs/path"])
def test_the_name_of_a_data_set_is_a_plain_name(tmp_path, name):
    with pytest.raises(InputError, match="--dataset must be a plain name"):
        options(tmp_path, dataset=name)


@pytest.mark.parametrize("images", [["in"], ["in/a.png"], ["other.png", "in/a.png"], ["link.png"]])
def test_predictions_beside_the_images_are_refused(tmp_path, images):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "in" / "a.png")
    paths = tuple(tmp_path / image for image in images)
    given = PredictOptions(model=tmp_path, images=paths, out=tmp_path / "in")
    with pytest.raises(InputError, match="--out .*: holds images"):
        given.resolved()
    replace(given, out=tmp_path / "out").resolved()


# What a run is recognised by, and what a restart removes


@dataclass
class Runs:
    """A run of two steps, which can be stopped in the second."""

    home: Path
    done: list

    def start(self, stop=False, **changes):
        """Start or go on with the run."""
        given = options(self.home, **changes)
        split = load_split(given.data_dir)
        inputs = files_fingerprint([f for part in ("train", "val", "test") for f in split[part]])

        def second():
            if stop:
                raise KeyboardInterrupt
            self.done.append("b")

        run = Run(given.save_dir, given, inputs)
        try:
            run.do([Step("a", lambda: self.done.append("a")), Step("b", second)])
        finally:
            run.lock.close()
        return given.save_dir


@pytest.fixture
def runs(dataset, tmp_path):
    return Runs(tmp_path, [])


def edit_split(home, change):
    path = home / "data" / "tiny" / "train_val_test.json"
    split = json.loads(path.read_text())
    change(split)
    write_json(path, split)


def move_to_val(split):
    split["val"].insert(0, split["train"].pop())


def move_to_train(split):
    split["train"].append(split["val"].pop())


def add_a_group(split):
    split["testA"] = list(split["test"])


@pytest.mark.parametrize("change", [move_to_val, move_to_train, add_a_group])
def test_sets_and_groups_are_what_a_run_is_recognised_by(runs, tmp_path, change):
    runs.start()
    edit_split(tmp_path, change)
    with pytest.raises(InputError, match=r"sets or groups of train_val_test.json have changed"):
        runs.start()
    runs.start(restart=True)
    assert runs.done == ["a", "b", "a", "b"]


def test_the_whole_content_of_a_large_file_counts(runs, tmp_path):
    path = tmp_path / "data" / "tiny" / "images" / "train0.png"
    path.write_bytes(path.read_bytes() + bytes(9 << 20))
    runs.start()
    with open(path, "r+b") as file:
        file.seek(5 << 20)
        file.write(b"x")
    with pytest.raises(InputError, match="input images or labels have changed"):
        runs.start()


def test_a_run_of_an_older_version_goes_on(runs, tmp_path):
    """It noted the beginnings of large files alone, and no sets."""
    path = tmp_path / "data" / "tiny" / "images" / "train0.png"
    path.write_bytes(path.read_bytes() + bytes(9 << 20))
    noted = runs.start() / "options.json"
    saved = json.loads(noted.read_text())
    write_json(noted, {k: v for k, v in saved.items() if k not in ("contents", "split")})
    runs.start()
    assert runs.done == ["a", "b"]
    path.write_bytes(path.read_bytes()[:-1])
    write_json(noted, {k: v for k, v in saved.items() if k not in ("contents", "split")})
    with pytest.raises(InputError, match="input images or labels have changed"):
        runs.start()


def test_a_restart_removes_what_a_run_wrote_and_nothing_else(runs, tmp_path):
    folder = runs.start()
    written = ["round_0/best.pt", "points/a.csv", "test/metrics.json", "selection.json",
               "labels_voronoi/a.png", "masks/last.pt", ".done/c.json"]  # fmt: skip
    others = ["notes.txt", "images/a.png", "train_val_test.json", "round_0/notes.txt", "best.pt"]
    for name in [*written, *others]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    lock = (folder / ".lock").stat().st_ino
    runs.start(restart=True)
    assert all((folder / name).read_text() == "x" for name in others)
    assert not any((folder / name).exists() for name in written)
    assert (folder / ".lock").stat().st_ino == lock
    assert runs.done == ["a", "b", "a", "b"]


def test_a_restart_leaves_alone_what_is_no_run(runs, tmp_path):
    folder = tmp_path / "out" / "mine"
    write_json(folder / "options.json", [1])
    write_json(folder / "selection.json", {})
    with pytest.raises(InputError, match="no run of this project"):
        runs.start(restart=True, save_dir=folder)
    assert (folder / "selection.json").is_file()


def test_a_linked_run_folder_can_be_restarted(runs, tmp_path):
    folder = runs.start()
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    runs.start(restart=True)
    assert folder.is_symlink() and runs.done == ["a", "b", "a", "b"]


@pytest.mark.parametrize("restart", [True, False])
def test_a_restart_that_was_stopped_goes_on(runs, restart):
    runs.start()
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop=True, restart=True)
    runs.start(restart=restart)
    assert runs.done == ["a", "b", "a", "b"]
    runs.start(restart=True)  # it was finished: this one begins anew
    assert runs.done == 3 * ["a", "b"]


def test_a_restart_with_other_options_begins_anew(runs):
    runs.start()
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop=True, restart=True)
    runs.start(restart=True, epochs=7)
    assert runs.done == ["a", "b", "a", "a", "b"]


def test_a_restart_killed_while_it_removes_files_removes_the_rest(runs, monkeypatch):
    folder = runs.start()
    (folder / "round_0").mkdir()
    (folder / "round_0" / "last.pt").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr("code_common.runs.steps.remove_run", lambda _: sys.exit(1))
        with pytest.raises(SystemExit):
            runs.start(restart=True)
    runs.start()  # the command printed has no --restart
    assert not (folder / "round_0").exists() and runs.done == ["a", "b", "a", "b"]


def process(code: str, *arguments: object, **keywords) -> subprocess.Popen:
    """Python code in a process of its own that can import the project."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **keywords.pop("env", {})}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes | keywords)


def test_the_command_to_go_on_has_no_restart():
    code = (
        "import os, signal, time\n"
        "from code_common.errors import run_script\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background\n"
        "run_script(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(9)))"
    )
    child = process(code, "--epochs", 3, "--restart", "--dataset", "x")
    error = child.communicate()[1]
    assert child.returncode == 130
    assert error.rstrip().endswith("--epochs 3 --dataset x") and "--restart" not in error


@pytest.mark.parametrize("change", ["empty", "without labels", "of other images"])
def test_a_group_without_scored_images_has_no_score(dataset, change):
    names = {"empty": [], "without labels": ["test0.png"], "of other images": ["val0.png"]}
    edit_split(dataset.parents[1], lambda split: split.update(testB=names[change]))
    if change == "without labels":
        (dataset / "labels_instance" / "test0_label.tif").unlink()
    assert test_groups(load_split(dataset)) == {}


def test_a_group_of_test_images_has_scores(dataset):
    edit_split(dataset.parents[1], add_a_group)
    assert test_groups(load_split(dataset)) == {"testA": ["test0"]}


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ENOSPC])
def test_every_error_of_the_system_is_one_line(capsys, number):
    def fail():
        raise OSError(number, os.strerror(number), "/out/a.csv")

    with pytest.raises(SystemExit) as ended:
        run_script(fail)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith("error: /out/a.csv: ") and "Trace" not in told


# Locks


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524]


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_disk_without_locks_is_worked_on(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_told", False)
    for name in ("a", "b"):
        assert locks.take_lock(tmp_path / name)
    assert capsys.readouterr().err.count("has no locks") == 1


def test_another_error_of_a_lock_is_one(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="no disk"):
        locks.take_lock(tmp_path / "a")


def test_who_waits_for_a_lock_gets_the_one_that_is_there(tmp_path):
    first = locks.take_lock(tmp_path / "a")
    assert locks.take_lock(tmp_path / "a") is None
    locks.remove_lock(tmp_path / "a", first)
    second = locks.take_lock(tmp_path / "a")
    assert second and locks.take_lock(tmp_path / "a") is None


# Shared memory


class Crop(torch.utils.data.Dataset):
    """Crops of 4 MB."""

    seed = 0

    def __len__(self):
        return 8

    def __getitem__(self, key):
        return {"image": torch.zeros(1 << 20), "image_index": 0}

    def collate(self, batch):
        return batch


@pytest.mark.parametrize(("megabytes", "workers"), [(64, 3), (64.1 * 8, 8), (8, 0), (10_000, 8)])
def test_workers_that_find_no_room_are_left_out(monkeypatch, capsys, megabytes, workers):
    room = SimpleNamespace(f_bavail=int(megabytes * 256), f_frsize=4096)
    monkeypatch.setattr(hardware.os, "statvfs", lambda _: room)
    loader = crops.make_loader(Crop(), batch_size=2, workers=8, pin=False)
    assert loader.num_workers == workers
    said = capsys.readouterr().out
    assert said == "" if workers == 8 else f"{workers} of 8 workers" in said


def test_a_worker_without_room_ends_in_one_line():
    code = (
        "from code_common.errors import run_script\n"
        "def main(): raise RuntimeError('unable to allocate shared memory(shm) for file')\n"
        "run_script(main)"
    )
    child = process(code)
    error = child.communicate()[1]
    assert child.returncode == 2 and error.count("\n") == 1
    assert "--workers 0" in error and "--shm-size" in error


# Weights that are none

WEB_PAGE = b"<!DOCTYPE html><html><body>Access denied</body></html>"


@pytest.mark.parametrize("content", [WEB_PAGE, b"", bytes(300), WEB_PAGE * 100])
def test_what_is_no_weights_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    url = ENCODERS["resnet18"].weights("resnet18").url
    path = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match="not the ImageNet weights") as caught:
        load_encoder(ResUNet("resnet18", 1, width=1.0), "resnet18", "imagenet")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [[1], 3, "text", {"network": [1]}, {1: 2}, {"conv1.weight": 1}])
def test_a_file_of_something_else_is_no_first_weights(tmp_path, value):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt"):
        load_encoder(ResUNet("resnet18", 1, width=0.25), "resnet18", str(tmp_path / "x.pt"))


@pytest.mark.parametrize("change", [{"network": 3}, {"width": "x"}, {"model": []}, {"width": 1e9}])
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, change):
    state = save_network(ResUNet("resnet18", 1, width=0.25)) | change
    with pytest.raises(InputError, match="not a checkpoint of this project"):
        network_of(state, tmp_path / "x.pt", torch.device("cpu"))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    network = ResUNet("resnet18", 1, width=0.25)
    with torch.no_grad():
        network.head.bias.fill_(float("nan"))
    torch.save(save_network(network), tmp_path / "x.pt")
    with pytest.raises(InputError, match="no finite numbers"):
        network_of(load_state(tmp_path / "x.pt"), tmp_path / "x.pt", torch.device("cpu"))


# Terminals and pipes

SPEAK = (
    "import sys\n"
    "from code_common.errors import run_script\n"
    "def main():\n"
    "    for _ in range(int(sys.argv[1])): print('d\\u00e9j\\u00e0 \\u2013 \\u65e5')\n"
    "    return 1\n"
    "run_script(main)\n"
    "print('end')"
)


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_error(lines, unbuffered):
    read, write = os.pipe()
    os.close(read)
    child = process(SPEAK, lines, stdout=write, env={"PYTHONUNBUFFERED": unbuffered})
    os.close(write)
    assert child.communicate()[1] == "" and child.returncode == 141


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_letters_shows_their_numbers(encoding):
    child = process(SPEAK, 1, env={"PYTHONIOENCODING": encoding}, encoding="latin-1")
    output, error = child.communicate()
    assert child.returncode == 0 and error == "" and "\\u65e5" in output


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path, closed):
    (tmp_path / "code.py").write_text(
        SPEAK + f"\nopen({str(tmp_path / 'out')!r}, 'w').write('mine')\n"
        "print('words', file=sys.stderr)\nimport os\nos.write(2, b'words of a library')"
    )
    command = f"{sys.executable} {tmp_path / 'code.py'} 1 {closed}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


# Names that are no UTF-8


def test_a_name_that_is_no_utf8_is_written_with_its_bytes_escaped(tmp_path):
    name = os.fsdecode(b"Pr\xe4parat")
    write_table(tmp_path / "t.csv", ("image", "nuclei"), [(name, 1), ("Präparat", 2)])
    assert (tmp_path / "t.csv").read_text("utf-8") == "image,nuclei\nPr\\xe4parat,1\nPräparat,2\n"
    assert printable("日 µ") == "日 µ"


# run.sh


def run_sh(*arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", PROJECT / "run.sh", *arguments]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ratio=7"], "--ratio must be from"),
        (["--repeats=0"], "--repeats must be a whole number"),
        (["--repeats", "9" * 20], "--repeats must be a whole number"),
        (["--dataset="], "--dataset needs a value"),
        (["--root-save-dir", ""], "--root-save-dir needs a value"),
        (["--repeats", "08"], "--repeats must be a whole number"),
        (["--save-dir", "x"], "give --root-save-dir"),
        (["--seg", "--save-dir=x"], "give --root-save-dir"),
        (["--repeat", "2"], "give --repeats N"),
        (["--seg", "--lr"], "--lr: expected one argument"),
        (["--rounds", "2"], "--rounds is an option of one stage; give it behind --detection"),
        (["--alpha=0"], "--alpha is an option of one stage; give it behind --seg"),
    ],
)
def test_an_option_of_run_sh_may_have_an_equals_sign(dataset, tmp_path, arguments, said):
    place = ["--dataset=tiny", f"--data-root={tmp_path / 'data'}"]
    done = run_sh(*place, f"--root-save-dir={tmp_path / 'out'}", *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "data" / "sample").exists()


def test_run_sh_on_a_data_set_elsewhere_needs_its_name(tmp_path):
    done = run_sh("--data-dir", tmp_path, f"--root-save-dir={tmp_path / 'out'}")
    assert done.returncode == 2 and "--data-dir needs --dataset" in done.stderr


@pytest.mark.parametrize(
    ("seg", "said"),
    [
        (["--pretrained", "no.pt"], r"--pretrained no\.pt: no such file"),
        (["--pretrained", "x.pt"], r"x\.pt: "),
        (["--detection-results-dir", "no"], r"no/detections/.*: no such file"),
        (["--self-training-points", "no"], "--self-training-points must be one of"),
    ],
)
def test_what_stage_2_would_refuse_is_found_before_stage_1(
    dataset, tmp_path, monkeypatch, seg, said
):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1)}, "x.pt")
    place = ["--dataset", "tiny", "--data-root", "data", "--root-save-dir", "out"]
    with pytest.raises(InputError, match=said):
        check.check_named_files(check.read_arguments([*place, "--no-pretrained", "--seg", *seg]))


FAKE_PYTHON = """#!/bin/bash
case "$1" in
  *.py)
    echo "${1##*/code_} $*" >> "$LOG"
    if [[ "$1 $*" == *"$FAIL"* ]]; then exit 3; fi ;;
  *) exec REAL "$@" ;;
esac
"""


def test_a_restart_of_run_sh_that_was_stopped_keeps_what_it_finished(tmp_path):
    """The same command goes on: only the stages that were not finished get --restart again."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON.replace("REAL", sys.executable))
    python.chmod(0o755)
    (tmp_path / "out" / "tiny").mkdir(parents=True)

    def started(fail, *more):
        """Stages that were started, and whether with --restart."""
        log = tmp_path / "log"
        log.write_text("")
        environment = {"VIRTUAL_ENV": python.parents[1], "LOG": log, "FAIL": fail}
        command = ["bash", PROJECT / "run.sh", "--dataset", "tiny", "--repeats", "2", *more]
        command += ["--root-save-dir", tmp_path / "out", "--restart"]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True)
        assert (done.returncode == 3) == (fail != "never"), done.stderr
        lines = [line for line in log.read_text().splitlines() if "main.py" in line]
        return [(line.split("/")[0], "--restart" in line) for line in lines]

    four = ["detection", "seg", "detection", "seg"]
    assert started("code_seg/main.py") == [("detection", True), ("seg", True)]
    goes_on = [("detection", False), ("seg", True), ("detection", True)]
    assert started("--repeat 2") == goes_on
    assert started("never") == list(zip(four, [False, False, True, True], strict=True))
    assert started("never") == list(zip(four, 4 * [True], strict=True))
    started("--repeat 2")
    assert started("never", "--epochs", "9") == list(zip(four, 4 * [True], strict=True))


@pytest.mark.parametrize("folder", ["-x", "-x/out"])
def test_a_folder_of_results_may_begin_with_a_dash(tmp_path, folder):
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON.replace("REAL", sys.executable))
    python.chmod(0o755)
    noted = tmp_path / folder / "tiny" / ".restarted_0.10"
    noted.parent.mkdir(parents=True)
    noted.write_text("another call\n")
    environment = {"VIRTUAL_ENV": python.parents[1], "LOG": tmp_path / "log", "FAIL": "never"}
    done = subprocess.run(
        ["bash", PROJECT / "run.sh", "--dataset", "tiny", f"--root-save-dir={folder}"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "") and not noted.exists()
    assert (tmp_path / "log").read_text().count(f"--root-save-dir=./{folder}") == 4
