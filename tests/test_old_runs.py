"""Runs that an older version began go on: nothing is done again, nothing changes unsaid."""

import gc
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, SELF_TRAINING, both_stages, link_run, place

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    STAGES,
    best_path,
    last_path,
    marker_path,
    options_path,
    selection_path,
)
from code_common.files.writing import write_json
from code_common.learning import training
from code_common.learning.checkpoints import load_state
from code_common.old_runs import (
    ADDED,
    REMOVED,
    RENAMED,
    RENAMED_FILES,
    checkpoint_path,
    options_today,
    refuse_removed,
    rename_files,
)
from code_seg.options import Options
from code_seg.selection import read_selection

MAIN = {"detection": "code_detection/main.py", "segmentation": "code_seg/main.py"}
# What options.json of each stage held when all scripts of a stage had the same options.
GONE = {"shard": "0/1", "model_path": None, "img_dir": None, "label_dir": None, "members": 1}
GONE_OF = {"detection": {"round": 0}, "segmentation": {"points_dir": None, "colour_scale": None}}


def age_options(folder: Path, lacks: tuple[str, ...] = (), **changed: object) -> None:
    """Give options.json and the markers of a stage the form that they had in older versions.

    lacks: options that were not there yet, by today's names; changed: other values, by old names.
    """
    saved = read_json(options_path(folder))
    old_names = {today: old for old, today in RENAMED.items()}
    kept = {name: value for name, value in saved["options"].items() if name not in lacks}
    saved["options"] = {old_names.get(name, name): value for name, value in kept.items()}
    saved["options"] |= GONE | GONE_OF[folder.name] | {"profile": "narrow"} | changed
    write_json(options_path(folder), saved)
    for marker in (folder / ".done").glob("*.json"):
        write_json(marker, {"key": "0123456789abcdef", "seconds": read_json(marker)["seconds"]})


def age_files(folder: Path) -> None:
    """Give files and folders of stage 2 their old names; the second network was selected."""
    for old, today in RENAMED_FILES.items():
        if (folder / today).exists():
            (folder / today).rename(folder / old)
    if selection_path(folder).is_file():
        selection = read_json(selection_path(folder))
        score = selection["val_score"].pop("self_training")
        selection["val_score"] |= {"masks": score}
        write_json(selection_path(folder), selection | {"checkpoint": "masks/best.pt"})


def age(run: Path) -> None:
    """Make of a run of both stages one as the last version with the old names left it."""
    for stage in STAGES:
        age_options(run / stage)
    age_files(run / "segmentation")


@pytest.fixture
def old_run(self_trained, tmp_path) -> Path:
    """A finished run of both stages in its old form, which no script has touched since."""
    run = link_run(self_trained, tmp_path)
    age(run)
    return run


@pytest.fixture
def start(monkeypatch, capfd):
    """Runs a script in this process, and returns what it prints."""

    def run(script: str, *given: object) -> str:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", [script, *map(str, given)])
        runpy.run_path(str(PROJECT / script), run_name="__main__")
        return capfd.readouterr().out

    return run


@pytest.fixture
def refused(start, capfd):
    """Runs a script that refuses, with status 2, and returns the one line that it says."""

    def run(script: str, *given: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            start(script, *given)
        message = capfd.readouterr().err
        assert stopped.value.code == 2 and message.count("\n") == 1, message
        return message

    return run


def arguments(home: Path, stage: str) -> list:
    """Those of main.py for the run in `home`, by today's names."""
    detection, seg = both_stages(home)
    return detection if stage == "detection" else [*seg, *SELF_TRAINING]


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_is_not_done_again(old_run, tmp_path, start, stage):
    before = {p.stat().st_ino: p.stat().st_mtime_ns for p in old_run.rglob("*.pt")}
    printed = start(MAIN[stage], *arguments(tmp_path, stage))
    assert printed.count("skipped") == len(printed.splitlines()) == 8
    assert len(before) == 5  # two rounds, three phases
    assert before == {p.stat().st_ino: p.stat().st_mtime_ns for p in old_run.rglob("*.pt")}


def test_its_files_and_options_get_the_names_of_today(old_run, tmp_path, start):
    start("code_seg/main.py", *arguments(tmp_path, "segmentation"))
    folder = old_run / "segmentation"
    for old, today in RENAMED_FILES.items():
        assert (folder / today).exists() and not (folder / old).exists()
    saved = read_json(options_path(folder))["options"]
    assert saved["self_training_epochs"] == 2
    assert not saved.keys() & (RENAMED.keys() | REMOVED.keys() | GONE.keys())


def test_what_an_older_run_lacks_counts_as_its_published_default(old_run, tmp_path, start, refused):
    given = arguments(tmp_path, "detection")
    lacks = tuple(ADDED.keys() - {"width"})  # of which the run has a quarter
    age_options(old_run / "detection", lacks)
    assert start("code_detection/main.py", *given).count("skipped") == 8
    age_options(old_run / "detection", lacks)
    message = refused("code_detection/main.py", *given, "--schedule", "cosine")
    assert "holds a run with --schedule constant, not cosine" in message


@pytest.mark.parametrize(
    ("saved", "restart", "parts"),
    [
        (None, False, 2),
        ({"options": {"ratio": 0.1}}, False, 1),  # begun before there were parts
        ({"options": {"ratio": 0.1}}, True, 2),
        ({"options": {"batch_parts": 2}}, False, 2),
        ("no run", False, 2),
        ({"options": "none"}, False, 2),
        ([], False, 2),
    ],
)
def test_a_profile_of_today_does_not_change_a_run_that_was_begun_before(
    tmp_path, saved, restart, parts
):
    if saved is not None:
        write_json(options_path(tmp_path), saved)
    values = {"dataset": "sample", "save_dir": tmp_path, "restart": restart}
    assert Options(**values).resolved().batch_parts == parts


def test_a_training_goes_on_where_an_older_version_was_killed(
    self_trained, tmp_path, start, monkeypatch
):
    """In the middle of the second network: the end is that of a run that was never stopped."""
    run = link_run(self_trained, tmp_path)
    folder, given = run / "segmentation", arguments(tmp_path, "segmentation")
    for step in ("train with self_training", "train with crf", "select", "test", "pictures"):
        marker_path(folder, step).unlink()
    for part in ("self_training", "crf", "test"):
        shutil.rmtree(folder / part)
    selection_path(folder).unlink()

    class Killed(Exception):
        pass

    def killed_in_the_second_epoch(*rest, **named):
        if last_path(folder / "self_training").is_file():
            raise Killed
        return train_epoch(*rest, **named)

    train_epoch = training.train_epoch
    with monkeypatch.context() as changed:
        changed.setattr(training, "SAVE_EVERY_S", -1.0)
        changed.setattr(training, "train_epoch", killed_in_the_second_epoch)
        with pytest.raises(Killed):
            start("code_seg/main.py", *given)
    gc.collect()  # a process that is killed holds no lock any more
    age(run)
    assert last_path(folder / "masks").is_file()

    printed = start("code_seg/main.py", *given)
    assert printed.count("skipped") == 3 and "going on after epoch 1 of 2" in printed
    whole = self_trained.root / "repeat_1" / "segmentation"
    for phase in ("self_training", "crf"):
        ours, theirs = (load_state(best_path(f / phase))["network"] for f in (folder, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_json(selection_path(folder)) == read_json(selection_path(whole))


@pytest.mark.parametrize("touched", [False, True], ids=["untouched", "after main.py"])
def test_other_scripts_work_on_an_old_run(old_run, tmp_path, start, touched):
    """Whether main.py has renamed its files or not."""
    if touched:
        start("code_seg/main.py", *arguments(tmp_path, "segmentation"))
    where = [*place(tmp_path), "--dataset", "tiny", "--ratio", 0.5]
    tiles = ["--device", "cpu", "--precision", "fp32", "--tile", 64, "--overlap", 16]
    checkpoint, _ = read_selection(old_run / "segmentation")
    assert checkpoint.parent.name == ("self_training" if touched else "masks")
    assert "3 images; components: pixel_f1" in start("code_seg/test.py", *where, *tiles)
    given = [*where, *tiles, "--r1", 6, "--round", 1]
    assert "3 images: precision" in start("code_detection/test.py", *given)

    image = tmp_path / "data" / "tiny" / "images" / "test0.png"
    for stage in ("code_detection", "code_seg"):
        given = ["--model", old_run, "--images", image, "--out", tmp_path / stage, *tiles]
        assert "in 1 images" in start(f"{stage}/predict.py", *given)
    start("tools/export_model.py", "--run", old_run, "--out", tmp_path / "model.pt")
    assert (tmp_path / "model.pt").is_file()

    where = ["--root-save-dir", tmp_path / "out", "--dataset", "tiny", "--ratio", 0.5]
    assert "Done" in start("tools/report.py", *where)
    assert "self-training" in (old_run.parent / "summary.md").read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_of_an_ensemble_is_refused(old_run, tmp_path, refused, stage):
    age_options(old_run / stage, members=3)
    message = refused(MAIN[stage], *arguments(tmp_path, stage))
    assert "a run with --members 3, an option that is gone" in message
    assert (old_run / "segmentation" / "masks").exists()  # nothing was renamed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--mask-epochs 3", "--mask-epochs; it is called --self-training-epochs now"),
        ("--mask-points all", "--mask-points; it is called --self-training-points now"),
        ("--magnify-to 12", "--magnify-to; it is called --nucleus-radius now"),
        ("--members 2", "--members; it is gone"),
        ("--colour-scale 4", "--colour-scale; it is gone"),
        ("--mask-epochs=3", "--mask-epochs; it is called --self-training-epochs now"),
    ],
)
def test_old_flags_are_told_by_their_new_names(given, message, refused):
    assert f"no such option: {message}" in refused("code_seg/main.py", *given.split())


@pytest.mark.parametrize("done", range(len(RENAMED_FILES)))
def test_a_renaming_that_was_killed_goes_on(old_run, tmp_path, monkeypatch, done):
    """After `done` names; meanwhile the selected checkpoint is found all the same."""
    folder, left, rename = old_run / "segmentation", [done], Path.rename

    def rename_or_die(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(source, target)

    with monkeypatch.context() as changed:
        changed.setattr(Path, "rename", rename_or_die)
        with pytest.raises(KeyboardInterrupt):
            rename_files(folder)
    assert sum((folder / today).exists() for today in RENAMED_FILES.values()) == done
    assert checkpoint_path(folder, "masks/best.pt").is_file()
    rename_files(folder)
    assert all((folder / today).exists() for today in RENAMED_FILES.values())
    assert not any((folder / old).exists() for old in RENAMED_FILES)
    assert checkpoint_path(folder, "masks/best.pt") == folder / "self_training" / "best.pt"


def test_options_of_old_runs_by_the_names_of_today():
    assert options_today({}) == ADDED
    assert options_today({"mask_epochs": 60, "members": 1}) == ADDED | {"self_training_epochs": 60}
    assert options_today({"views": 8})["views"] == 8


@pytest.mark.parametrize(
    ("saved", "allowed"),
    [
        ({}, True),
        ({"members": 1, "colour_scale": None}, True),
        ({"members": 2}, False),
        ({"colour_scale": 10.0}, True),  # today's of rgb
        ({"colour_scale": 4.0}, False),
        ({"colour_scale": 4.0, "cluster_colours": ["red"]}, False),  # nonsense
        ({"colour_scale": 4.0, "cluster_colours": "red"}, True),  # today's of red
    ],
)
def test_options_that_are_gone_at_values_that_are_not(saved, allowed):
    path = Path("run/options.json")
    if allowed:
        refuse_removed(saved, path)
    else:
        with pytest.raises(InputError, match="run/options.json: a run with --.* that is gone"):
            refuse_removed(saved, path)


def test_finished_steps_without_options_are_refused(old_run, tmp_path, refused):
    options_path(old_run / "detection").unlink()
    message = refused("code_detection/main.py", *arguments(tmp_path, "detection"))
    assert "holds finished steps, but no options.json" in message
