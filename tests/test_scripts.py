"""The scripts as a user runs them, on a tiny set: end to end, again, alone, on bad input."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import (
    PROJECT,
    RUN,
    SELF_TRAINING,
    both_stages,
    digest,
    link_run,
    make_dataset,
    place,
    run_here,
)

from code_common.arrays import points_from_instances
from code_common.config import parse
from code_common.files.images import read_instances, read_label
from code_common.files.reading import read_json, read_table
from code_common.files.run_folder import (
    best_path,
    phase_folder,
    points_path,
    round_folder,
    selection_path,
)
from code_common.files.writing import write_json, write_png, write_points
from code_common.inference.trained_run import load_trained_run
from code_common.launch import tiling_of
from code_common.learning.checkpoints import load_state
from code_detection import options as detection_options
from code_detection import train
from code_detection.prepare_data import prepare
from code_seg import options as seg_options
from code_seg import self_training

STAGES = ("code_detection", "code_seg")
CPU = torch.device("cpu")


def test_the_input_is_never_written_to(experiment):
    assert digest(experiment.home / "data" / "tiny") == experiment.data_before


def test_stage_1_leaves_points_detections_and_scores(experiment):
    folder = experiment.root / "repeat_1" / "detection"
    scores = read_json(folder / "test" / "metrics.json")["pooled"]["all"]
    assert set(scores) == {"precision", "recall", "f1", "mean_distance", "std_distance"}
    for name in ("train0", "train1", "val0", "test0"):
        table = read_table(folder / "detections" / f"{name}_points.csv")
        assert set(table) == {"row", "col", "prob"}
    points = (folder / "points" / "train0.csv").read_text()
    assert points.startswith("# 2 of 5 points, seed ")


def test_stage_2_leaves_instances_outlines_and_scores(experiment):
    folder = experiment.root / "repeat_1" / "segmentation"
    metrics = read_json(folder / "test" / "metrics.json")
    assert set(metrics["mean"]) == {"components", "points", "convex"}
    named = {"aji", "aji_reference", "aji_plus", "pq", "object_dice", "object_hausdorff"}
    assert named <= set(metrics["mean"]["points"]["all"])
    instances = read_label(folder / "test" / "test0_instances.tif", (64, 64))
    nuclei = json.loads((folder / "test" / "test0_nuclei.geojson").read_text())["features"]
    assert len(nuclei) == len(np.unique(instances[instances > 0]))
    saved = read_json(folder / "options.json")
    assert saved["pretrained_loaded"] == "none" and saved["crf_backend_used"]


def test_nothing_unfinished_is_left(experiment):
    assert not list(experiment.root.rglob("*.tmp")) and not list(experiment.root.rglob("last.pt"))


def test_a_run_tells_how_long_it_will_take(experiment):
    for stage in experiment.printed.split("== tiny")[1:]:
        assert "left)" in stage


def test_the_same_command_again_does_nothing(finished, tmp_path, capfd):
    """In words and on disk."""
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.pt")}
    for stage, given, steps in zip(STAGES, both_stages(tmp_path), (8, 6), strict=True):
        run_here(stage, "main", *given)
        printed = capfd.readouterr().out
        assert printed.count("skipped") == len(printed.splitlines()) == steps
    assert len(before) == 4  # two rounds, two phases
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*.pt")}


def test_other_options_do_not_overwrite_a_run(finished, tmp_path, run_script):
    before = digest(finished)
    given = both_stages(tmp_path)[1]
    refused = run_script("code_seg/main.py", *given, "--lr", "0.002", code=2).stderr
    assert "--lr" in refused and "--restart" in refused and refused.count("\n") == 1
    assert digest(finished) == before


def test_detection_in_images_of_ones_own(finished, tmp_path, run_script):
    """Without labels there are detections, those of the run's own round, and no scores."""
    shutil.copytree(tmp_path / "data" / "tiny" / "images", tmp_path / "own")
    given = [*place(tmp_path), "--dataset", "tiny", "--ratio", 0.5]
    printed = run_script("code_detection/test.py", *given, "--img-dir", tmp_path / "own").stdout
    assert "no labels" in printed
    found, own = (finished / "detection" / name for name in ("detections", "test_own"))
    for name in ("test0_points.csv", "test0_prob.png"):
        assert (own / name).read_bytes() == (found / name).read_bytes()


def test_segmentation_of_images_of_ones_own(finished, tmp_path, run_script):
    """With labels and detections every method is scored."""
    tiny, detections = tmp_path / "data" / "tiny", finished / "detection" / "detections"
    given = [*place(tmp_path), "--dataset", "tiny", "--ratio", 0.5, "--img-dir", tiny / "images"]
    given += ["--label-dir", tiny / "labels_instance", "--points-dir", detections]
    assert "points: pixel_f1" in run_script("code_seg/test.py", *given).stdout


@pytest.mark.slow  # test_training.py has the same for one training
def test_two_runs_of_one_seed_are_equal_whatever_the_workers(tmp_path, dataset, run_script):
    weights = []
    for root, workers in (("a", 0), ("b", 2)):
        for stage, given in zip(STAGES, both_stages(tmp_path, rounds=0), strict=True):
            changed = ["--root-save-dir", tmp_path / root, "--workers", workers]
            run_script(f"{stage}/main.py", *given, *changed)
        path = best_path(phase_folder(tmp_path / root / RUN / "segmentation", "crf"))
        weights.append(load_state(path)["network"])
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_nothing_is_chosen_on_test_images(tmp_path, dataset):
    """D1: without any test image the same checkpoint is chosen, on the validation images."""
    split = read_json(dataset / "train_val_test.json")
    chosen = []
    for root, test in (("a", split["test"]), ("b", [])):
        write_json(dataset / "train_val_test.json", {**split, "test": test})
        for stage, given in zip(STAGES, both_stages(tmp_path, rounds=0), strict=True):
            run_here(stage, "main", *given, "--root-save-dir", tmp_path / root)
        out = tmp_path / root / RUN / "segmentation"
        weights = load_state(best_path(phase_folder(out, "crf")))["network"]
        chosen.append((read_json(selection_path(out)), weights))
    (first, a), (second, b) = chosen
    assert first == second and set(first["val_aji"]) == {"components", "points", "convex"}
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_best_round_may_be_taken_instead_of_the_last(tmp_path, dataset, run_script):
    given = both_stages(tmp_path)[0]
    printed = run_script("code_detection/main.py", *given, "--final-round", "best").stdout
    folder = tmp_path / "out" / RUN / "detection"
    first, last = (load_state(best_path(round_folder(folder, r)))["score"] for r in (0, 1))
    assert f"detect: round {int(last > first)}, " in printed


def test_single_scripts_do_what_main_does(tmp_path, dataset):
    """prepare_data, train and test alone end where main ends."""
    (tmp_path / "single").mkdir()
    for stage, given in zip(STAGES, both_stages(tmp_path, rounds=0), strict=True):
        run_here(stage, "main", *given)
        alone = [*given, "--root-save-dir", tmp_path / "single"]
        if stage == "code_seg":
            alone += ["--detection-results-dir", tmp_path / "out" / RUN / "detection"]
        for script in ("prepare_data", "train", "test"):
            run_here(stage, script, *alone)
    for path in ("detection/test/metrics.json", "segmentation/test/metrics.json"):
        ours, single = (read_json(tmp_path / root / RUN / path) for root in ("out", "single"))
        assert ours == single


def without_masks(folder):
    """Make of a tiny data set one that has two points in each training image, and no masks."""
    for path in sorted((folder / "labels_instance").glob("train*")):
        instances = read_label(path, (64, 64))
        dots = np.zeros((64, 64), np.uint8)
        for label in (1, 2):
            row, col = np.argwhere(instances == label).mean(0).astype(int)
            dots[row, col] = 255
        name = path.name.replace("_label.tif", "_label_point.png")
        write_png(folder / "labels_point" / name, dots)
    shutil.rmtree(folder / "labels_instance")


def test_a_set_of_partial_points_without_masks(tmp_path, dataset, run_script):
    """The real case: no masks at all, ratio 1; only scores need masks."""
    without_masks(dataset)
    detection, seg = both_stages(tmp_path, "--ratio", 1, rounds=0)
    given = [*detection, "--auto-threshold", "--threshold", 0.4]
    printed = run_script("code_detection/main.py", *given).stdout
    assert "4 of 4 points annotated" in printed and "no points for the validation" in printed
    assert "the last epoch is taken as the best; --threshold 0.4 is kept" in printed
    printed = run_script("code_seg/main.py", *seg, "--self-training-epochs", 1).stdout
    assert "no masks to score against" in printed
    out = tmp_path / "out" / "tiny" / "ratio_1" / "repeat_1" / "segmentation"
    chosen = read_json(selection_path(out))
    # The likelihoods of labels that differ do not compare: the first network is not asked.
    assert chosen["instances"] == "convex"
    assert chosen["checkpoint"] in ("self_training/best.pt", "crf/best.pt")
    assert (out / "test" / "test0_instances.tif").is_file()


def test_a_second_network_learns_the_nuclei_of_the_first(self_trained):
    titles = [line.split(": ")[0] for line in self_trained.printed.splitlines() if line[0] == "["]
    assert titles == [
        "[1/8] prepare",
        "[2/8] train with labels",
        "[3/8] self-training labels",
        "[4/8] train with self_training",
        "[5/8] train with crf",
        "[6/8] select",
        "[7/8] test",
        "[8/8] pictures",
    ]
    out = self_trained.root / "repeat_1" / "segmentation"
    assert set(read_json(selection_path(out))["val_score"]) == {"labels", "self_training", "crf"}
    assert len(read_table(out / "self_training" / "log.csv")["epoch"]) == 2
    states = [load_state(best_path(out / phase)) for phase in ("labels", "self_training", "crf")]
    first, second, third = (state["network"]["encoder.conv1.weight"] for state in states)
    # The second begins anew, the third goes on from it with a tenth of the steps.
    assert (second - third).abs().mean() < 0.3 * (second - first).abs().mean()


def label_errors_of(folder):
    """How wrong the labels of the second network are: image -> shares; and their means."""
    errors = read_json(folder / "self_training_label_errors.json")
    return errors["images"], errors["mean_train"]


def test_the_errors_of_self_training_labels_are_told(self_trained):
    images, means = label_errors_of(self_trained.root / "repeat_1" / "segmentation")
    assert set(images) == {"train0", "train1", "val0"}
    assert f"{means['wrong']:.1%} wrong" in self_trained.printed


def test_single_scripts_train_a_second_network_as_main_does(self_trained, tmp_path):
    run = self_trained.root / "repeat_1"
    given = [*both_stages(self_trained.home)[1], *SELF_TRAINING, "--save-dir", tmp_path / "single"]
    given += ["--detection-results-dir", run / "detection"]
    for script in ("prepare_data", "train", "test"):
        run_here("code_seg", script, *given)
    ours, single = run / "segmentation", tmp_path / "single"
    assert read_json(ours / "test/metrics.json") == read_json(single / "test/metrics.json")


def test_a_second_network_may_learn_the_annotated_nuclei_alone(self_trained, tmp_path, monkeypatch):
    """Others are ignored, but for those of validation images, where nothing is annotated."""
    folder = link_run(self_trained, tmp_path) / "segmentation"
    truth_of = tmp_path / "data" / "tiny" / "labels_instance"
    for name in ("train0", "train1", "val0"):  # as if stage 1 had found all nuclei
        points = points_from_instances(read_instances(truth_of / f"{name}_label.tif", (64, 64)))
        write_points(points_path(folder, name), points)
    # A first network that is right: nuclei are dark.
    monkeypatch.setattr(
        self_training, "predict_prob", lambda _, image, tiling: (image[..., 0] < 150) * 1.0
    )
    errors = {}
    for choice in ("all", "annotated"):
        given = [*both_stages(tmp_path)[1], *SELF_TRAINING, "--self-training-points", choice]
        options = parse(seg_options.Options, "", list(map(str, given)))
        self_training.write_self_training_labels(options)
        errors[choice], _ = label_errors_of(folder)
    for name in ("train0", "train1"):
        assert errors["annotated"][name]["ignored"] > errors["all"][name]["ignored"]
        assert errors["annotated"][name]["nuclei_found"] < errors["all"][name]["nuclei_found"]
    assert errors["annotated"]["val0"] == errors["all"]["val0"]


OTHER_SHAPES = (pytest.param(shape, marks=pytest.mark.slow) for shape in ((40, 30), (129, 70)))


@pytest.mark.parametrize("shape", [(33, 150), *OTHER_SHAPES])
def test_images_of_any_shape(tmp_path, run_script, shape):
    """D24: also smaller than a patch or a crop."""
    make_dataset(tmp_path / "data" / "tiny", shape=shape)
    detection, seg = both_stages(tmp_path, rounds=0)
    run_script("code_detection/main.py", *detection)
    run_script("code_seg/main.py", *seg, "--crf-epochs", 0)
    out = tmp_path / "out" / RUN / "segmentation" / "test"
    read_label(out / "test0_instances.tif", shape)


def without_a_label(folder):
    (folder / "labels_instance" / "train0_label.tif").unlink()


def without_an_image(folder):
    (folder / "images" / "train1.png").unlink()


def broken_image(folder):
    path = folder / "images" / "train1.png"
    path.write_bytes(path.read_bytes()[:200])


def other_size(folder):
    write_png(folder / "labels_instance" / "train0_label.png", np.zeros((64, 32), np.uint16))
    without_a_label(folder)


def binary_mask(folder):
    mask = np.zeros((64, 64), np.uint8)
    mask[5:15, 5:15] = mask[30:40, 30:40] = 255
    write_png(folder / "labels_instance" / "train0_label.png", mask)
    without_a_label(folder)


def no_point(folder):
    write_png(folder / "labels_instance" / "train0_label.png", np.zeros((64, 64), np.uint16))
    without_a_label(folder)


def empty_split(folder):
    write_json(folder / "train_val_test.json", {"train": [], "val": [], "test": []})


def no_split(folder):
    (folder / "train_val_test.json").unlink()


def escaping_name(folder):
    write_json(folder / "train_val_test.json", {"train": ["../../x.png"]})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (without_a_label, "train0.png"),
        (without_an_image, "train1.png"),
        (broken_image, "train1.png"),
        (other_size, "train0_label.png"),
        (binary_mask, "train0_label.png"),
        (no_point, "train0.png"),
        (empty_split, "train_val_test.json"),
        (no_split, "train_val_test.json"),
        (escaping_name, "../../x.png"),
        (shutil.rmtree, "tiny"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, dataset, run_script, damage, named):
    damage(dataset)
    done = run_script("code_detection/main.py", *both_stages(tmp_path)[0], code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert named in done.stderr and "Traceback" not in done.stderr
    written = [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".pt", ".tmp")]
    assert not written


def test_after_the_input_is_mended_the_same_command_works(tmp_path, dataset, run_script):
    label = dataset / "labels_instance" / "train0_label.tif"
    whole = label.read_bytes()
    label.write_bytes(whole[:100])
    command = ["code_detection/main.py", *both_stages(tmp_path, rounds=0)[0]]
    run_script(*command, code=2)
    label.write_bytes(whole)
    run_script(*command)
    label.write_bytes(whole + b"changed")
    assert "have changed" in run_script(*command, code=2).stderr


def test_one_point_in_the_whole_set_trains(tmp_path, run_script):
    folder = make_dataset(tmp_path / "data" / "tiny", train=1)
    dots = np.zeros((64, 64), np.uint8)
    dots[10, 10] = 255
    write_png(folder / "labels_point" / "train0_label_point.png", dots)
    detection, seg = both_stages(tmp_path, rounds=0)
    assert "1 of 1 points" in run_script("code_detection/main.py", *detection).stdout
    run_script("code_seg/main.py", *seg)


def test_segmentation_without_detection_says_what_to_run(tmp_path, dataset, run_script):
    done = run_script("code_seg/main.py", *both_stages(tmp_path)[1], code=2)
    assert "run stage 1 first" in done.stderr and done.stderr.count("\n") == 1


def test_a_read_only_output_folder_is_named(tmp_path, dataset, run_script):
    (tmp_path / "out").write_text("a file, not a folder")
    done = run_script("code_detection/main.py", *both_stages(tmp_path)[0], code=2)
    assert "out" in done.stderr and "Traceback" not in done.stderr


def bash(*arguments, **keywords):
    return subprocess.run(
        ["bash", PROJECT / "run.sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        **keywords,
    )


def test_run_sh_chains_both_stages(experiment):
    assert "== tiny, ratio 0.5, repeat 2 of 2: segmentation" in experiment.printed
    assert "report.html" in experiment.printed and "_overlay.png" in experiment.printed


def test_run_sh_tells_what_a_run_takes_before_it_begins(experiment):
    plan = experiment.printed[: experiment.printed.index("== tiny")]
    assert "[plan] cpu: about 1 min for 2 repeats" in plan and "takes up to" in plan


def test_repeats_have_folders_and_points_of_their_own(experiment):
    """D22."""
    repeats = [experiment.root / f"repeat_{k}" for k in (1, 2)]
    for stage in ("detection", "segmentation"):
        saved = [read_json(repeat / stage / "options.json") for repeat in repeats]
        assert [s["options"]["repeat"] for s in saved] == [1, 2]
        assert saved[0]["machine"]["cores"] >= 1 and saved[0]["machine"]["device"] == "cpu"
    first, second = ((repeat / "detection/points/train0.csv").read_text() for repeat in repeats)
    assert first != second


def test_run_sh_help_and_errors(tmp_path, dataset):
    done = bash("--help")
    assert done.returncode == 0 and "--seg OPTIONS" in done.stdout
    assert bash("--repeats", "0").returncode == 2
    assert bash("--ratio").returncode == 2
    for wrong in (["--no-such-option"], ["--seg", "--no-such-option"]):  # before any training
        done = bash("--dataset", "tiny", *place(tmp_path), *wrong)
        assert done.returncode == 2 and "no such option" in done.stderr
        assert not (tmp_path / "out").exists()


def test_the_threshold_is_chosen_by_validation_images(tmp_path, dataset, monkeypatch):
    """--auto-threshold: true nuclei reach 0.4 and everything else 0.28, so 0.3 or 0.35 is best."""
    given = [str(a) for a in both_stages(tmp_path)[0]]
    chosen = parse(detection_options.Options, "", [*given, "--auto-threshold"])
    fixed = parse(detection_options.Options, "", [*given, "--threshold", "0.45"])
    prepare(chosen)
    truth = read_instances(dataset / "labels_instance" / "val0_label.tif", (64, 64))
    prob = np.where(truth > 0, 0.4, 0.0).astype(np.float32)
    row, col = np.argwhere((truth == 0)[20:44, 20:44])[0] + 20
    beside = (slice(row, row + 5), slice(col, col + 5))
    prob[beside] = np.maximum(prob[beside], 0.28)
    monkeypatch.setattr(train, "predict_prob", lambda *_: prob)

    tiling = tiling_of(chosen, CPU)
    scores = train.make_validate(chosen, None, tiling)()
    assert scores["threshold"] in (0.3, 0.35) and scores["score"] == scores["f1"] == 1
    scores = train.make_validate(fixed, None, tiling)()
    assert "threshold" not in scores and scores["f1"] == 0


def test_a_small_network_with_views_and_its_own_threshold(tmp_path, dataset):
    """Everything after training takes shape and threshold from what training wrote."""
    more = "--width 0.25 --views 4 --stain-augmentation 0.2 --stem-stride 1".split()
    detection, seg = both_stages(tmp_path, *more, rounds=0)
    detection += "--auto-threshold --unknown-weight 0.1 --loss bce".split()
    run_here("code_detection", "main", *detection)
    run_here("code_seg", "main", *seg)
    out = tmp_path / "out" / RUN
    scores = load_state(best_path(round_folder(out / "detection", 0)))["scores"]
    stages = load_trained_run(out, CPU)
    assert stages["detection"].settings["threshold"] == scores["threshold"]
    for stage in stages.values():
        assert (stage.network.width, stage.network.stem_stride) == (0.25, 1)
