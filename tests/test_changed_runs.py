"""Between two equal commands something changed: it is done again and said, or refused."""

import fcntl
import multiprocessing
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import RUN, both_stages, run_here
from test_systems import options

from code_common.errors import InputError
from code_common.files.contents import files_fingerprint, refuse_unfinished
from code_common.files.data_set import load_split
from code_common.files.locks import take_lock
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    STAGES,
    all_points_paths,
    detections_path,
    marker_path,
    options_path,
    val_points_path,
)
from code_common.files.writing import write_json, write_png, write_points
from code_common.runs import code_version
from code_common.runs.estimate import estimate
from code_common.runs.steps import LOCK, Run, Step, do_alone

STEPS = ("a", "b", "c")
POINT = np.array([[9, 9]])


class Runs:
    """A run of three steps: each adds its name to the file of the one before."""

    def __init__(self, home: Path):
        self.home, self.done = home, []

    @property
    def folder(self) -> Path:
        return options(self.home).save_dir

    def steps(self, stop: str = "") -> list[Step]:
        def write(name: str) -> None:
            before = self.folder / chr(ord(name) - 1) / "out.csv"
            text = before.read_text() if before.is_file() else ""
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "out.csv").write_text(text + name)
            (self.folder / name / "more.csv").write_text(name)
            self.done.append(name)
            if name == stop:
                raise KeyboardInterrupt

        return [
            Step(
                name,
                lambda name=name: write(name),
                work=1.0,
                writes=[Path(name, file) for file in ("out.csv", "more.csv")],
            )
            for name in STEPS
        ]

    def start(self, stop: str = "", annotated: tuple[Path, ...] = (), **changes) -> list[str]:
        """Start or go on; the steps that were done."""
        self.done, given = [], options(self.home, **changes)
        split = load_split(given.data_dir)
        inputs = files_fingerprint([f for part in ("train", "val", "test") for f in split[part]])
        inputs = inputs._replace(annotated=files_fingerprint([], [], annotated).annotated)
        run = Run(given.save_dir, given, inputs)
        try:
            run.do(self.steps(stop))
        finally:
            run.lock.close()
        return self.done


@pytest.fixture
def runs(dataset, tmp_path, monkeypatch) -> Runs:
    monkeypatch.setattr("code_common.runs.steps.code_version", lambda: "old")  # git takes a moment
    monkeypatch.setattr("code_common.runs.steps.choose_precision", lambda *_: torch.float32)
    runs = Runs(tmp_path)
    assert runs.start() == ["a", "b", "c"] and runs.start() == []
    return runs


def out(runs: Runs, step: str) -> Path:
    return runs.folder / step / "out.csv"


@pytest.mark.parametrize("how", ["removed", "emptied", "whole folder"])
@pytest.mark.parametrize("step", STEPS)
def test_what_is_gone_is_made_again(runs, capsys, step, how):
    """And nothing else, as it is the same again."""
    if how == "emptied":
        out(runs, step).write_text("")
    elif how == "removed":
        out(runs, step).unlink()
    else:
        shutil.rmtree(runs.folder / step)
    assert runs.start() == [step]
    said = "more.csv: gone, with 1 more files," if how == "whole folder" else "out.csv: gone"
    assert f"{step}/{said}; '{step}' is done again" in capsys.readouterr().out
    assert out(runs, "c").read_text() == "abc" and runs.start() == []


@pytest.mark.parametrize("step", STEPS)
def test_what_was_edited_is_refused_and_kept(runs, step):
    before = out(runs, step).stat()
    out(runs, step).write_text(out(runs, step).read_text().upper())  # of the same size
    os.utime(out(runs, step), ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=f"{step}/out.csv: changed since '{step}' wrote it"):
        runs.start()
    assert out(runs, step).read_text().isupper()
    out(runs, step).unlink()
    assert runs.start() == [step]


def test_what_was_edited_is_refused_though_another_file_is_gone(runs):
    """Else the edited file would be taken for what the step wrote when it is done again."""
    (runs.folder / "b" / "more.csv").unlink()
    out(runs, "b").write_text("other")
    with pytest.raises(InputError, match="b/out.csv: changed since 'b' wrote it"):
        runs.start()
    assert out(runs, "b").read_text() == "other"


def test_what_follows_from_another_result_is_done_again(runs, monkeypatch):
    out(runs, "a").unlink()
    differ(runs, monkeypatch)
    assert runs.start() == ["b", "c"] and out(runs, "c").read_text() == "xbc"


def test_a_step_that_is_stopped_while_it_is_done_again_goes_on(runs):
    """Its files differ from those noted: no reason to refuse them."""
    out(runs, "b").unlink()
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop="b")
    out(runs, "b").write_text("half")
    assert runs.start() == ["b"] and runs.start() == []


def differ(runs, monkeypatch):
    """From now on the first step writes something else."""
    steps = runs.steps

    def others(stop=""):
        write = partial(out(runs, "a").write_text, "x")
        return [Step("a", write, writes=[Path("a", "out.csv")]), *steps(stop)[1:]]

    monkeypatch.setattr(runs, "steps", others)


@pytest.mark.parametrize("lost", ["result", "marker"])
def test_while_a_step_is_done_again_the_run_is_unfinished(runs, lost):
    """Whoever would read its results is told so, until all fits again."""
    refuse_unfinished(runs.folder)
    (out(runs, "b") if lost == "result" else marker_path(runs.folder, "b")).unlink()
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop="b")
    with pytest.raises(InputError, match="'b' is to be done again; finish this run first"):
        refuse_unfinished(runs.folder)
    assert runs.start()[0] == "b"
    refuse_unfinished(runs.folder)


def test_what_follows_from_another_result_is_unfinished_until_it_is_done(runs, monkeypatch):
    out(runs, "a").unlink()
    differ(runs, monkeypatch)
    for step in ("b", "c"):
        with pytest.raises(KeyboardInterrupt):
            runs.start(stop=step)
        with pytest.raises(InputError, match="'[bc]' is to be done again"):
            refuse_unfinished(runs.folder)
    assert runs.start() == ["c"]
    refuse_unfinished(runs.folder)


def test_a_first_run_is_not_unfinished_in_its_later_steps(runs):
    """As its model is selected before the test, it may be used meanwhile."""
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop="c", restart=True)
    refuse_unfinished(runs.folder)


def test_a_step_that_is_being_done_again_is_not_counted_as_done(runs):
    out(runs, "b").unlink()
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop="b")
    plan = estimate([(options(runs.home), runs.steps())], [], repeats=1)
    assert (plan.done, plan.steps) == (2, 3)


def test_a_run_may_be_copied_and_moved(runs, tmp_path):
    shutil.copytree(runs.folder, tmp_path / "copy")
    shutil.rmtree(runs.folder)
    shutil.move(tmp_path / "copy", runs.folder)
    assert runs.start() == []


def test_files_of_ones_own_may_change(runs):
    for text in ("mine", "changed"):
        (runs.folder / "notes.csv").write_text(text)
        (runs.folder / "a" / "notes.csv").write_text(text)
        assert runs.start() == []


def test_a_run_of_an_older_version_notes_no_files(runs):
    for step in STEPS:
        write_json(marker_path(runs.folder, step), {"seconds": 1})
    out(runs, "b").write_text("edited")
    assert runs.start() == []


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null", '{"seconds": "1"}',
                                  '{"seconds": true}', '{"seconds": 1e999}', '{"seconds": NaN}',
                                  '{"seconds": 1, "files": []}'])  # fmt: skip
def test_a_damaged_marker_is_made_again(runs, capsys, text):
    path = marker_path(runs.folder, "b")
    path.write_text(text)
    assert runs.start() == ["b", "c"]
    assert f"{path}: " in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null", '{"options": []}'])
@pytest.mark.parametrize("finished", [True, False])
def test_damaged_options_are_named(runs, text, finished):
    if not finished:
        shutil.rmtree(marker_path(runs.folder, "a").parent)
    options_path(runs.folder).write_text(text)
    with pytest.raises(InputError, match=r"options\.json: "):
        runs.start()
    assert options_path(runs.folder).read_text() == text


def test_other_first_weights_are_refused(runs, tmp_path):
    (tmp_path / "w.pt").write_text("x")
    given = {"pretrained": str(tmp_path / "w.pt"), "restart": True}
    runs.start(**given)
    moved = tmp_path / "moved.pt"
    moved.write_text("x")
    assert runs.start(pretrained=str(moved)) == []  # the same weights, wherever they lie
    for path in (tmp_path / "w.pt", moved):
        path.write_text("y")
        with pytest.raises(InputError, match=r"\.pt, have changed since this run began"):
            runs.start(pretrained=str(path))


def test_other_annotated_points_are_refused(runs, tmp_path):
    """Stage 2 takes the points of stage 1 as well as its detections."""
    path = tmp_path / "points.csv"
    path.write_text("row,col\n")
    runs.start(annotated=(path,), restart=True)
    assert runs.start(annotated=(path,)) == []
    path.write_text("row,col\n1,2\n")
    with pytest.raises(InputError, match="the annotated points of stage 1 have changed"):
        runs.start(annotated=(path,))


def test_other_code_is_said_and_noted(runs, monkeypatch, capsys):
    monkeypatch.setattr("code_common.runs.steps.code_version", lambda: "new")
    assert runs.start() == []
    assert read_json(options_path(runs.folder))["commit"] == "old"  # nothing was done
    out(runs, "c").unlink()
    assert runs.start() == ["c"]
    assert "another version of the code, new, not old" in capsys.readouterr().out
    assert read_json(options_path(runs.folder))["commit"] == "old, new"


def test_only_first_weights_that_are_given_are_noted(runs):
    assert {"first_weights", "start_from"}.isdisjoint(read_json(options_path(runs.folder)))


def test_code_that_its_commit_does_not_tell_has_a_hash(tmp_path, monkeypatch):
    """Of a download without git, and of a checkout that was changed and is changed again."""
    losses = tmp_path / "code_seg" / "losses.py"
    losses.parent.mkdir()
    versions = []
    for text in ("a", "b"):
        losses.write_text(text)
        monkeypatch.setattr(code_version, "PROJECT", tmp_path)
        versions.append(code_version.code_version())
        monkeypatch.setattr(code_version.subprocess, "run", lambda *_, **__: Described())
        versions.append(code_version.code_version())
        monkeypatch.undo()
    assert len(set(versions)) == 4
    assert [re.fullmatch("(unknown|1a-dirty)-[0-9a-f]{8}", v)[1] for v in versions] == 2 * [
        "unknown", "1a-dirty",
    ]  # fmt: skip
    monkeypatch.setattr(code_version.subprocess, "run", lambda *_, **__: Described("1a"))
    assert code_version.code_version() == "1a"


class Described(NamedTuple):
    """What git says of a checkout."""

    stdout: str = "1a-dirty\n"


def test_stage_1_of_other_code_or_in_another_format_is_said(runs, monkeypatch, capsys):
    """As stage 2 begins, which may be long after stage 1."""
    stage_1 = runs.home / "stage_1"
    write_json(options_path(stage_1), {"options": {}, "commit": "a, b", "precision_used": "bf16"})
    monkeypatch.setattr(type(options(runs.home)), "detection_dir", lambda _: stage_1)
    runs.start(restart=True)
    said = capsys.readouterr().out
    assert said.count("stage_1: made with another version of the code, a, b, not old") == 1
    assert said.count("stage_1: made with another number format, bf16, not fp32") == 1
    out(runs, "c").unlink()
    assert runs.start() == ["c"]
    assert "another" not in capsys.readouterr().out


def test_another_number_format_is_said_and_noted(runs, monkeypatch, capsys):
    """With --precision auto another processor may choose another one."""
    assert read_json(options_path(runs.folder))["precision_used"] == "fp32"
    monkeypatch.setattr("code_common.runs.steps.choose_precision", lambda *_: torch.bfloat16)
    assert runs.start() == []
    out(runs, "c").unlink()
    assert runs.start() == ["c"]
    assert "goes on with another number format, bf16, not fp32" in capsys.readouterr().out
    assert read_json(options_path(runs.folder))["precision_used"] == "fp32, bf16"


# What a first attempt to prepare left


def prepare(home: Path, stage: str) -> Path:
    """Prepare a stage again; its run folder."""
    place = STAGES.index(stage)
    run_here(("code_detection", "code_seg")[place], "prepare_data", *both_stages(home)[place])
    return home / "out" / RUN / stage


def test_what_a_first_attempt_left_of_other_images_is_removed(dataset, tmp_path):
    """They would count as annotated, and would validate. Files of one's own stay."""
    stage_1 = prepare(tmp_path, "detection")
    for image in load_split(dataset)["train"] + load_split(dataset)["val"]:
        write_points(detections_path(stage_1, image.name), POINT)
    stage_2 = prepare(tmp_path, "segmentation")
    mine = [folder / "points" / "mine.csv" for folder in (stage_1, stage_2)]
    for path in mine:
        path.write_text("mine")
    split = read_json(dataset / "train_val_test.json")
    split["test"].append(split["train"].pop())
    write_json(dataset / "train_val_test.json", split)
    (dataset / "labels_instance" / "val0_label.tif").unlink()
    (dataset / "labels_instance" / "train0_label.tif").rename(tmp_path / "hold.tif")
    point = np.zeros((64, 64), np.uint8)
    point[9, 9] = 255
    write_png(dataset / "labels_point" / "train0_label_point.png", point)
    for stage in STAGES:
        prepare(tmp_path, stage)
    assert [path.name for path in all_points_paths(stage_1)] == ["mine.csv", "train0.csv"]
    assert not val_points_path(stage_1, "val0").exists()
    assert all(path.read_text() == "mine" for path in mine)
    left = {path for path in stage_2.rglob("*") if path.stem == "train1" or "errors" in path.name}
    assert not left
    assert len([path for path in stage_2.rglob("train0.*")]) == 4


def test_a_plan_of_other_options_is_refused(runs, tmp_path):
    """Before hours of stage 1, where it is stage 2 that has a run with others."""
    given = options(tmp_path, epochs=77)
    with pytest.raises(InputError, match="holds a run with --epochs"):
        estimate([(given, [])], [], repeats=1)
    estimate([(options(tmp_path, epochs=77, restart=True), [])], [], repeats=1)


def work(home: Path, log: Path) -> None:
    """A restart that holds its run folder for a while."""

    def step() -> None:
        for word in ("begin", "end"):
            with open(log, "a") as file:
                file.write(word + "\n")
            time.sleep(0.2)

    given = options(home, restart=True)
    Run(given.save_dir, given, files_fingerprint([])).do([Step("only", step)])


def test_a_restart_that_was_stopped_in_its_first_step_does_not_go_on_with_other_options(runs):
    with pytest.raises(KeyboardInterrupt):
        runs.start(stop="a", restart=True)
    (runs.folder / "test").mkdir()
    (runs.folder / "test" / "metrics.json").write_text("{}")
    assert runs.start(restart=True, epochs=7) == ["a", "b", "c"]
    assert not (runs.folder / "test" / "metrics.json").exists()


def test_two_restarts_that_wait_for_one_folder_never_work_at_once(runs, tmp_path):
    lock, log = take_lock(runs.folder / LOCK), tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=work, args=(tmp_path, log)) for _ in range(2)]
    for child in children:
        child.start()
    time.sleep(0.5)
    assert not log.exists()
    fcntl.flock(lock, fcntl.LOCK_UN)  # the children have inherited it
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert log.read_text().split() == 2 * ["begin", "end"]
    assert read_json(options_path(runs.folder))["restarting"] is False


def test_a_script_of_one_step_does_not_work_beside_main(runs, monkeypatch):
    """Two trainings in one folder would mix their weights."""
    monkeypatch.setattr("code_common.runs.steps.LOCK_PATIENCE_S", 0)
    given = options(runs.home)
    assert do_alone(lambda _: "done", given) == "done"
    lock = take_lock(runs.folder / LOCK)
    with pytest.raises(InputError, match="another process is working in this run folder"):
        do_alone(lambda _: "done", given)
    lock.close()
    assert do_alone(lambda _: "done", given) == "done"


def test_a_script_of_one_step_leaves_a_run_with_other_options_alone(runs):
    with pytest.raises(InputError, match="holds a run with --lr"):
        do_alone(lambda _: pytest.fail("was done"), options(runs.home, lr=0.5))
