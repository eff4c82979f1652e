"""What a training is made of: with anything else of it, it does not go on."""

import numpy as np
import pytest
from conftest import RUN, both_stages, run_here

from code_common.files.data_set import load_split
from code_common.files.run_folder import (
    STAGES,
    background_path,
    best_path,
    detections_path,
    label_path,
    points_path,
    val_points_path,
)
from code_common.files.writing import write_bytes, write_json, write_png, write_points

POINTS = np.array([[10, 10], [30, 30], [50, 10]])


@pytest.fixture
def made_of(dataset, tmp_path, monkeypatch):
    """A function that does a train.py but for the training: the folder's name -> what it is of."""
    found = {}

    def note(*_, made_of, folder, **__):
        found[folder.name] = made_of
        write_bytes(best_path(folder), b"weights")

    for package in ("code_detection", "code_seg"):
        monkeypatch.setattr(f"{package}.train.fit", note)
        monkeypatch.setattr(f"{package}.train.first_network", lambda *_: (None, {}))
    monkeypatch.setattr("code_seg.train.load_network", lambda *_: None)
    monkeypatch.setattr("code_seg.train.select", lambda _: "")
    stage_1 = tmp_path / "out" / RUN / "detection"
    for name in ("train0", "train1", "val0"):
        write_points(detections_path(stage_1, name), POINTS)
    for package, arguments in zip(
        ("code_detection", "code_seg"), both_stages(tmp_path), strict=True
    ):
        run_here(package, "prepare_data", *arguments)

    def train(stage: str, *more) -> dict[str, dict]:
        found.clear()
        place = STAGES.index(stage)
        package = ("code_detection", "code_seg")[place]
        arguments = both_stages(tmp_path)[place] + (["--crf-backend", "torch"] if place else [])
        run_here(package, "train", *arguments, *more)
        return dict(found)

    return train


# Options that the whole result depends on, that the CRF phase alone does, and others
OF_ALL = ["--stain-augmentation 0.9", "--input-size 96", "--min-area 3", "--tile 96"]
OF_STAGE = {"detection": ["--loss bce", "--r1 5", "--unknown-weight 0.5", "--threshold 0.2"],
            "segmentation": ["--alpha 0.3", "--elastic 0", "--instances points"]}  # fmt: skip
OF_NONE = ["--cache disk", "--test-batch-size 3", "--epochs 7", "--precision bf16", "--workers 1"]


@pytest.mark.parametrize("stage", STAGES)
def test_of_which_options(made_of, stage):
    before = made_of(stage)
    for option in OF_ALL + OF_STAGE[stage]:
        after = made_of(stage, *option.split())
        assert all(after[folder] != before[folder] for folder in before), option
    for option in OF_NONE:
        assert made_of(stage, *option.split()) == before, option


def test_options_of_a_later_phase_leave_the_first_one_as_it_is(made_of):
    before = made_of("segmentation")
    for option in ("--crf-weight 1", "--crf-sigma-xy 4", "--crf-backend exact"):
        after = made_of("segmentation", *option.split())
        assert after["labels"] == before["labels"] and after["crf"] != before["crf"]
    for option in ("--crf-epochs 3", "--views 8"):
        assert made_of("segmentation", *option.split()) == before


@pytest.mark.parametrize("what", ["image", "points", "val points", "no val points", "background"])
def test_of_which_files_a_round_is(made_of, dataset, tmp_path, what):
    stage_1 = tmp_path / "out" / RUN / "detection"
    for name in ("train0", "train1"):
        write_png(background_path(stage_1, 1, name), np.zeros((64, 64), np.uint8))
    before = [made_of("detection", "--round", round) for round in (0, 1)]
    if what == "image":
        write_png(dataset / "images" / "val0.png", np.zeros((64, 64, 3), np.uint8))
    elif what == "points":
        write_points(points_path(stage_1, "train1"), POINTS)
    elif what == "val points":
        write_points(val_points_path(stage_1, "val0"), POINTS)
    elif what == "no val points":
        val_points_path(stage_1, "val0").unlink()
    else:
        write_png(background_path(stage_1, 1, "train1"), np.ones((64, 64), np.uint8))
    after = [made_of("detection", "--round", round) for round in (0, 1)]
    assert after[1] != before[1]
    assert (after[0] == before[0]) is (what == "background")


@pytest.mark.parametrize("what", ["image", "label", "mask", "detections"])
def test_of_which_files_a_phase_is(made_of, dataset, tmp_path, what):
    before, stages = made_of("segmentation"), tmp_path / "out" / RUN
    if what == "image":
        write_png(dataset / "images" / "train0.png", np.zeros((64, 64, 3), np.uint8))
    elif what == "label":
        red = np.zeros((64, 64, 3), np.uint8)
        red[..., 0] = 255
        write_png(label_path(stages / "segmentation", "labels_cluster", "train0"), red)
    elif what == "mask":
        files = load_split(dataset)["val"][0]
        files.instances.write_bytes((dataset / "labels_instance/train0_label.tif").read_bytes())
    else:
        write_points(detections_path(stages / "detection", "val0"), POINTS[:2])
    after = made_of("segmentation")
    assert all(after[phase] != before[phase] for phase in ("labels", "crf"))


@pytest.mark.parametrize("found, validates", [(POINTS, True), (POINTS[:0], False)])
def test_a_validation_image_without_mask_needs_detections(
    dataset, tmp_path, made_of, found, validates, capsys
):
    """Its labels are made of them: without any no epoch would have a score."""
    (dataset / "labels_instance" / "val0_label.tif").unlink()
    write_points(detections_path(tmp_path / "out" / RUN / "detection", "val0"), found)
    run_here("code_seg", "prepare_data", *both_stages(tmp_path)[1])
    made_of("segmentation")
    said = "nothing was found in the validation images: the last epoch is taken as the best"
    assert (said not in capsys.readouterr().out) is validates


def test_validation_images_of_which_some_lack_a_mask_are_named(dataset, tmp_path, made_of, capsys):
    """The masks of the others choose nothing then."""
    split = {"train": ["train0.png"], "val": ["train1.png", "val0.png"], "test": []}
    write_json(dataset / "train_val_test.json", split)
    (dataset / "labels_instance" / "val0_label.tif").unlink()
    run_here("code_seg", "prepare_data", *both_stages(tmp_path)[1])
    made_of("segmentation")
    assert "1 (val0) of 2 validation images have no masks: the" in capsys.readouterr().out


def test_the_crf_phase_is_of_the_network_that_it_starts_from(made_of, monkeypatch):
    """It does not go on, nor is it kept, for another network of the phase before it."""
    before = made_of("segmentation")

    def note(*_, made_of, folder, **__):
        now[folder.name] = made_of
        write_bytes(best_path(folder), b"others")

    now = {}
    monkeypatch.setattr("code_seg.train.fit", note)
    made_of("segmentation")
    assert now["labels"] == before["labels"] and now["crf"] != before["crf"]


@pytest.mark.parametrize("stage", STAGES)
def test_first_weights_of_a_file_count(made_of, tmp_path, stage):
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"1")
    before = made_of(stage, "--pretrained", weights)
    write_bytes(tmp_path / "moved" / "w.pt", b"1")
    assert made_of(stage, "--pretrained", tmp_path / "moved" / "w.pt") == before
    weights.write_bytes(b"2")
    after, first = made_of(stage, "--pretrained", weights), "labels round_0".split()
    assert all(after[folder] != before[folder] for folder in first if folder in before)
