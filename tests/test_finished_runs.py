"""A finished run knows what is its own, and nothing else is taken for it, or lost with it."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from conftest import both_stages, link_tree, run_here, taken_by

from code_common.config import parse
from code_common.errors import InputError
from code_common.files.contents import refuse_unfinished
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    STAGES,
    best_path,
    marker_path,
    marker_paths,
    metrics_path,
    options_path,
    oracles_path,
    results_folder,
    round_folder,
    selection_path,
)
from code_common.files.writing import write_bytes, write_json
from code_common.inference.trained_run import load_trained_run, pack_run
from code_common.learning.checkpoints import checkpoint_bytes, load_state
from code_common.reporting.results import read_repeat
from code_common.runs.removal import noted_files, remove_run
from code_common.runs.steps import do_alone
from code_detection import options as detection
from code_detection.self_training import better_round, choose_round
from code_seg import options as segmentation
from code_seg.selection import select
from tools import export_model, score

PACKAGES = dict(zip(STAGES, ("code_detection", "code_seg"), strict=True))
# Notes, what other programs leave, and copies that were edited.
OWN_FILES = ("notes.txt", "Thumbs.db", "corrected.geojson", "mine.csv", "a_overlay_edited.png")


def files_in(folder: Path) -> set[Path]:
    """All files in a folder, but for its lock."""
    return {path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def own_files_in(folder: Path) -> dict[Path, str]:
    """Files of a user's own in every folder of a run: path -> content."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    found = {}
    for path in (place / name for place in folders for name in OWN_FILES):
        if ".done" not in path.parts:
            path.write_text(str(path))
            found[path] = str(path)
    return found


def arguments(home: Path, stage: str, *more: object) -> list:
    """The arguments of a stage of the finished run in `home`."""
    return [*both_stages(home)[STAGES.index(stage)], *more]


def again(home: Path, stage: str) -> None:
    run_here(PACKAGES[stage], "main", *arguments(home, stage))


@pytest.mark.parametrize("stage", STAGES)
def test_every_result_is_noted(self_trained, experiment, stage):
    home = self_trained.root if stage == "segmentation" else experiment.root
    folder = home / "repeat_1" / stage
    files = {path for path in files_in(folder) if ".done" not in path.parts}
    others = {path for path in files if path.name in ("options.json", "log.csv")}
    assert noted_files(folder) == files - others


@pytest.mark.parametrize("stage", STAGES)
def test_files_of_ones_own_do_not_count(finished, tmp_path, stage, capsys):
    """Also where a step is done again that writes into their folder."""
    folder = finished / stage
    own = own_files_in(folder)
    metrics_path(results_folder(folder)).unlink()
    again(tmp_path, stage)
    assert "'test' is done again" in capsys.readouterr().out
    for path in own:
        path.write_text("changed")
    again(tmp_path, stage)
    assert "gone" not in capsys.readouterr().out
    assert all(path.read_text() == "changed" for path in own)


@pytest.mark.parametrize("version", ["this", "an older one"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_restart_removes_the_run_and_leaves_files_of_ones_own(finished, stage, version):
    folder = finished / stage
    own = set(own_files_in(folder))
    if version != "this":  # its markers tell of no files
        for path in marker_paths(folder):
            write_json(path, {"seconds": 1})
        own = {p for p in own if p.parent.name in ("test", "detections", "train")}
    write_json(oracles_path(folder), {})  # what this run would score with true labels
    remove_run(folder)
    left = files_in(folder) - {options_path(folder)}
    assert own <= left
    assert {path.name for path in left} == set(OWN_FILES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_in_which_a_step_is_to_be_done_again_is_no_model(finished, stage):
    """Its network may be another one than that which the later steps saw."""
    load_trained_run(finished, torch.device("cpu"))
    marker = next(path for path in marker_paths(finished / stage) if path.stem.startswith("train"))
    write_json(marker, {"files": read_json(marker)["files"]})
    with pytest.raises(InputError, match=f"'{marker.stem}' is to be done again; finish this run"):
        load_trained_run(finished, torch.device("cpu"))


def test_a_stage_2_of_earlier_detections_is_no_model(finished, tmp_path):
    """Stage 1 was restarted with other options, and stage 2 was not."""
    points = finished / "detection" / "detections" / "train0_points.csv"
    text = points.read_text()
    points.write_text(text.replace("0.", "1.", 1))
    with pytest.raises(InputError, match="segmentation: made of other detections than those"):
        load_trained_run(finished, torch.device("cpu"))
    points.write_text(text)
    load_trained_run(finished, torch.device("cpu"))


def test_stage_2_does_not_begin_with_half_of_stage_1(finished, tmp_path):
    write_json(marker_path(finished / "detection", "detect"), {"files": {}})
    with pytest.raises(InputError, match="'detect' is to be done again"):
        again(tmp_path, "segmentation")


def test_a_run_that_is_done_again_ends_with_the_same_results(finished, tmp_path, monkeypatch):
    """Stopped after the training that gave other weights, no later result is taken for its."""
    folder = finished / "segmentation"
    before = {path: path.read_bytes() for path in noted_files(folder)}
    best = best_path(folder / "labels")
    best.unlink()
    marker = marker_path(folder, "train with labels")
    write_json(marker, {"seconds": 1, "files": {str(best.relative_to(folder)): "another"}})
    with monkeypatch.context() as patch:
        patch.setattr("code_seg.train.load_network", stop)  # as the CRF phase begins
        with pytest.raises(KeyboardInterrupt):
            again(tmp_path, "segmentation")
    with pytest.raises(InputError, match="is to be done again"):
        load_trained_run(finished, torch.device("cpu"))
    again(tmp_path, "segmentation")
    load_trained_run(finished, torch.device("cpu"))
    assert {path: path.read_bytes() for path in noted_files(folder)} == before


def stop(*_):
    raise KeyboardInterrupt


def test_only_the_phases_of_the_options_are_chosen_from(finished, tmp_path):
    """A network of another call of train.py may lie beside theirs."""
    folder = finished / "segmentation"
    assert best_path(folder / "crf").is_file()
    for epochs, phases in ((1, {"labels", "crf"}), (0, {"labels"})):
        given = arguments(tmp_path, "segmentation", "--crf-epochs", epochs)
        select(parse(segmentation.TrainOptions, "", taken_by_train(given)))
        assert set(read_json(selection_path(folder))["val_score"]) == phases


def unscored(*checkpoints: Path) -> None:
    """Make checkpoints what a training without validation leaves."""
    for path in checkpoints:
        state = load_state(path) | {"score": 0.0, "scores": {}}
        write_bytes(path, checkpoint_bytes(state))


def test_without_scores_the_last_round_is_the_best(finished, tmp_path):
    unscored(*(best_path(round_folder(finished / "detection", round)) for round in (0, 1)))
    given = arguments(tmp_path, "detection", "--final-round", "best")
    options = parse(detection.Options, "", list(map(str, given)))
    assert choose_round(options) == 1 and not better_round(options)


def test_a_round_that_was_better_than_the_last_one_is_told(finished, tmp_path):
    """Self-training can harm: with random first weights the later rounds see nuclei everywhere."""

    def told(f1: dict[int, float], final_round: str) -> str:
        for round, value in f1.items():
            path = best_path(round_folder(finished / "detection", round))
            state = load_state(path)
            state |= {"score": value, "scores": state["scores"] | {"f1": value}}
            write_bytes(path, checkpoint_bytes(state))
        given = arguments(tmp_path, "detection", "--final-round", final_round)
        return better_round(parse(detection.Options, "", list(map(str, given))))

    line = told({0: 0.7, 1: 0.5}, "last")
    assert "round 0 was better" in line and "F1 0.700, not 0.500" in line
    assert not told({0: 0.7, 1: 0.5}, "best") and not told({0: 0.5, 1: 0.7}, "last")
    assert not told({0: 0.7, 1: 0.7}, "last")


def test_without_scores_the_last_phase_is_the_best(finished, tmp_path):
    """Also where there is a validation image: nothing was found in it, and it has no mask."""
    folder = finished / "segmentation"
    (tmp_path / "data" / "tiny" / "labels_instance" / "val0_label.tif").unlink()
    unscored(*(best_path(folder / phase) for phase in ("labels", "crf")))
    given = taken_by_train(arguments(tmp_path, "segmentation"))
    select(parse(segmentation.TrainOptions, "", given))
    chosen = read_json(selection_path(folder))
    assert chosen["checkpoint"] == "crf/best.pt" and chosen["val_score"] is None


# Another checkpoint than the one that the run chose


def test_results_of_another_round_are_refused(finished, tmp_path):
    folder = finished / "detection"
    before = {path: path.read_bytes() for path in files_in(folder)}
    for more in (("--round", 0), ("--model-path", best_path(round_folder(folder, 0)))):
        with pytest.raises(InputError, match=r"results of .*/round_1/best.pt, the checkpoint that"):
            run_here("code_detection", "test", *arguments(tmp_path, "detection", *more))
    assert {path: path.read_bytes() for path in files_in(folder)} == before
    for more in ((), ("--round", 1)):
        run_here("code_detection", "test", *arguments(tmp_path, "detection", *more))


def test_results_of_another_checkpoint_have_a_folder_of_their_own(finished, tmp_path):
    folder, other = finished / "segmentation", tmp_path / "other.pt"
    chosen = folder / read_json(selection_path(folder))["checkpoint"]
    os.link(chosen, other)
    scores = metrics_path(results_folder(folder)).read_bytes()
    more = ["--model-path", other, "--instances", "points"]
    with pytest.raises(InputError, match="give another --save-dir for those of .*other.pt"):
        run_here("code_seg", "test", *arguments(tmp_path, "segmentation", *more[:2]))
    more += ["--save-dir", tmp_path / "tested"]
    run_here("code_seg", "test", *arguments(tmp_path, "segmentation", *more))
    assert metrics_path(results_folder(tmp_path / "tested")).is_file()
    own = arguments(tmp_path, "segmentation", "--model-path", chosen)
    run_here("code_seg", "test", *own)
    assert metrics_path(results_folder(folder)).read_bytes() == scores


# Stage 1 of another data set


@pytest.mark.parametrize("what", ["images", "sets"])
def test_stage_1_of_another_data_set_is_refused(finished, tmp_path, what):
    """Of images with the same names and sizes, or of another fold of the same ones."""
    data = tmp_path / "data" / "tiny"
    if what == "images":
        image = data / "images" / "train0.png"
        content = image.read_bytes()
        image.unlink()  # it is a link to that of another test
        image.write_bytes(content + b"\0")
    else:
        split = read_json(data / "train_val_test.json")
        split["train"], split["val"] = split["train"][:1], split["train"][1:]
        (data / "train_val_test.json").unlink()
        write_json(data / "train_val_test.json", split)
    given = ["--save-dir", tmp_path / "new", "--detection-results-dir", finished / "detection"]
    with pytest.raises(InputError, match="a run on other images, labels or sets than those of"):
        run_here("code_seg", "main", *arguments(tmp_path, "segmentation", *given))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_by_itself_leaves_a_run_of_main_alone(finished, tmp_path, stage):
    before = {path: path.read_bytes() for path in files_in(finished / stage)}
    with pytest.raises(InputError, match=r"holds a run of main\.py, whose networks this would"):
        do_alone(stop, options_of(stage, tmp_path), trains=True)
    assert {path: path.read_bytes() for path in files_in(finished / stage)} == before


def options_of(stage, home):
    module = importlib.import_module(f"{PACKAGES[stage]}.options")
    return parse(module.Options, "", list(map(str, arguments(home, stage))))


def test_no_tool_writes_among_the_results_of_a_run(finished, tmp_path):
    """Its checkpoint or its scores would be replaced."""
    test, best = finished / "segmentation" / "test", finished / "segmentation/labels/best.pt"
    before = best.read_bytes()
    for given in (["--out", best], ["--out", tmp_path / "m.pt", "--card", test / "card.md"]):
        with pytest.raises(InputError, match="lies in the run folder"):
            export_model.main(export_model.parse_arguments(as_words("--run", finished, *given)))
    assert best.read_bytes() == before and not (tmp_path / "m.pt").exists()
    data = tmp_path / "data" / "tiny"
    given = ["--images", data / "images", "--labels", data / "labels_instance"]
    with pytest.raises(InputError, match="lies in the run folder"):
        score.main(score.parse_arguments(as_words(*given, "--predicted", test, "--out", test)))
    assert "instances" in read_json(metrics_path(test))


def taken_by_train(given: list) -> list[str]:
    return taken_by(segmentation.TrainOptions, segmentation.Options, as_words(*given))


def as_words(*given):
    return list(map(str, given))


# Stage 1 that lies elsewhere


@pytest.fixture
def apart(finished, tmp_path):
    """The two stages of a finished run, as stage 2 notes them with --detection-results-dir."""
    stage_1 = finished.rename(finished.with_name("both")) / "detection"
    stage_2 = tmp_path / "out" / "smooth" / "segmentation"
    stage_2.parent.mkdir()
    (stage_1.parent / "segmentation").rename(stage_2)
    path = options_path(stage_2)
    saved = read_json(path)
    places = {"detection_results_dir": str(stage_1), "save_dir": str(stage_2)}
    write_json(path, saved | {"options": saved["options"] | places})
    return stage_1, stage_2


def make_anew(stage_1):
    """Other detections, as of another seed."""
    points = stage_1 / "detections" / "train0_points.csv"
    text = points.read_text().replace("0.", "1.", 1)
    points.unlink()  # it is a link to that of another test
    points.write_text(text)


def make_back(stage_1):
    points = stage_1 / "detections" / "train0_points.csv"
    points.write_text(points.read_text().replace("1.", "0.", 1))


def test_a_stage_1_elsewhere_that_was_made_anew_is_noticed(apart):
    stage_1, stage_2 = apart
    for read in (lambda: pack_run(stage_2.parent), lambda: read_repeat(stage_2.parent)):
        read()
        make_anew(stage_1)
        with pytest.raises(InputError, match=f"other detections than those .* in {stage_1}"):
            read()
        make_back(stage_1)


def test_a_stage_1_that_is_gone_is_no_fault(apart):
    stage_1, stage_2 = apart
    stage_1.parent.rename(stage_1.parents[1] / "moved")
    pack_run(stage_2.parent)


def test_stages_that_were_copied_together_belong_together(apart, tmp_path):
    """The stage 1 beside the copy counts, not the one that it was copied from."""
    stage_1, _ = apart
    link_tree(tmp_path / "out", tmp_path / "copy")
    copy_1, copy_2 = (tmp_path / "copy" / s.relative_to(tmp_path / "out") for s in apart)
    make_anew(stage_1)
    pack_run(copy_2.parent)
    make_anew(copy_1)
    with pytest.raises(InputError, match=f"in {copy_1}"):
        pack_run(copy_2.parent)


def test_a_stage_2_in_a_folder_of_its_own_knows_stage_1(finished, tmp_path):
    """Where --save-dir is given to stage 2 alone, stage 1 lies in its usual folder."""
    stage_2 = (finished / "segmentation").rename(tmp_path / "own")
    saved = read_json(options_path(stage_2))
    places = {"root_save_dir": str(tmp_path / "out"), "save_dir": str(stage_2)}
    write_json(options_path(stage_2), saved | {"options": saved["options"] | places})
    refuse_unfinished(stage_2)
    make_anew(finished / "detection")
    with pytest.raises(InputError, match=f"in {finished / 'detection'}"):
        refuse_unfinished(stage_2)
