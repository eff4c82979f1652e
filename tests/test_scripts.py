"""Every script as a user runs it: help, end to end on a tiny set, skipping, bad input."""

import hashlib
import json
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, make_dataset, run_here

from code_common.files.reading import read_instances, read_json, read_table
from code_common.files.writing import write_json, write_png
from code_common.learning.checkpoints import load_state

PROJECT = Path(__file__).resolve().parents[1]
STAGES = ("code_detection", "code_seg")
SCRIPTS = [f"{stage}/{name}.py" for stage in STAGES
           for name in ("main", "prepare_data", "train", "test")]  # fmt: skip
RUN = "tiny/ratio_0.5/repeat_1"


def options(tmp_path, *more, rounds=1):
    """Arguments of both stages, and those of each alone."""
    common = [*TINY, "--data-root", tmp_path / "data", "--root-save-dir", tmp_path / "out", *more]
    detection = [*common, "--rounds", rounds, "--r1", 6, "--r2", 12, "--sigma", 1.5]
    return detection, [*common, "--crf-epochs", 1, "--crf-sigma-xy", 3, "--merge-radius", 6]


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.mark.parametrize(
    "script",
    [
        *SCRIPTS, "data/make_sample.py", "data/import_labels.py", "data/make_split.py",
        "tests/benchmarks/crf_loss.py", "tools/report.py", "tools/export_model.py",
        "tools/compare.py", "tools/sweep.py", "code_seg/oracles.py",
        "code_detection/pictures.py", "code_seg/pictures.py", "code_seg/prepare_masks.py",
        "code_detection/predict.py", "code_seg/predict.py", "data/check.py",
    ],
)  # fmt: skip
def test_every_script_has_help(monkeypatch, capsys, script):
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(PROJECT / script), run_name="__main__")
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and "usage:" in text and len(text) > 200


def test_both_stages_end_to_end(tmp_path, dataset, run_script):
    before = digest(dataset)
    detection, seg = options(tmp_path)
    first = run_script("code_detection/main.py", *detection)
    second = run_script("code_seg/main.py", *seg)
    assert digest(dataset) == before  # inputs are never written to

    out = tmp_path / "out" / RUN
    scores = read_json(out / "detection" / "test" / "metrics.json")["pooled"]["all"]
    assert set(scores) == {"precision", "recall", "f1", "mean_distance", "std_distance"}
    for name in ("train0", "train1", "val0", "test0"):
        assert set(read_table(out / "detection/detections" / f"{name}_points.csv")) == {
            "row", "col", "prob",
        }  # fmt: skip
    points = (out / "detection" / "points" / "train0.csv").read_text()
    assert points.startswith("# 2 of 5 points, seed ")
    metrics = read_json(out / "segmentation" / "test" / "metrics.json")
    assert set(metrics["mean"]) == {"components", "points", "convex"}
    assert {"aji", "aji_reference", "aji_plus", "pq", "object_dice", "object_hausdorff"} <= set(
        metrics["mean"]["points"]["all"]
    )
    test = out / "segmentation" / "test"
    instances = read_instances(test / "test0_instances.tif", (64, 64))
    nuclei = json.loads((test / "test0_nuclei.geojson").read_text())["features"]
    assert len(nuclei) == len(np.unique(instances[instances > 0]))
    saved = read_json(out / "segmentation" / "options.json")
    assert saved["pretrained_loaded"] == "none" and saved["crf_backend_used"]
    assert not list(out.rglob("*.tmp")) and not list(out.rglob("last.pt"))
    for told in (first.stdout, second.stdout):
        assert "left)" in told

    # The same command again does nothing, in words and on disk.
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.pt")}
    again = run_script("code_detection/main.py", *detection).stdout
    assert again.count("skipped") == len(again.splitlines())
    again = run_script("code_seg/main.py", *seg).stdout
    assert again.count("skipped") == len(again.splitlines()) == 6
    assert stamps == {p: p.stat().st_mtime_ns for p in out.rglob("*.pt")}

    # Other options do not overwrite it.
    other = run_script("code_seg/main.py", *seg, "--lr", "0.002", code=2)
    assert "--lr" in other.stderr and "--restart" in other.stderr

    # Single scripts, on images of one's own, from anywhere.
    shutil.copytree(dataset / "images", tmp_path / "own")
    run = ["--save-dir", out / "detection"]
    told = run_script("code_detection/test.py", *detection, *run, "--round", 1,
                      "--img-dir", tmp_path / "own").stdout  # fmt: skip
    assert "no labels" in told
    assert (out / "detection" / "test_own" / "test0_points.csv").is_file()
    told = run_script(
        "code_seg/test.py", *seg, "--img-dir", dataset / "images",
        "--label-dir", dataset / "labels_instance", "--points-dir", out / "detection/detections",
    ).stdout  # fmt: skip
    assert "points: pixel_f1" in told


def test_two_runs_of_one_seed_are_equal_whatever_the_workers(tmp_path, dataset, run_script):
    weights = []
    for root, workers in (("a", 0), ("b", 2)):
        for script, given in zip(STAGES, options(tmp_path, rounds=0), strict=True):
            place = ["--root-save-dir", tmp_path / root, "--workers", workers]
            run_script(f"{script}/main.py", *given, *place)
        path = tmp_path / root / RUN / "segmentation" / "crf" / "best.pt"
        weights.append(torch.load(path, weights_only=True)["network"])
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_nothing_is_chosen_on_test_images(tmp_path, dataset):
    """D1: without any test image the same checkpoint is chosen, on the validation images."""
    split = read_json(dataset / "train_val_test.json")
    chosen = []
    for root, test in (("a", split["test"]), ("b", [])):
        write_json(dataset / "train_val_test.json", {**split, "test": test})
        for script, given in zip(STAGES, options(tmp_path, rounds=0), strict=True):
            run_here(script, "main", *given, "--root-save-dir", tmp_path / root)
        out = tmp_path / root / RUN / "segmentation"
        weights = torch.load(out / "crf" / "best.pt", weights_only=True)["network"]
        chosen.append((read_json(out / "selection.json"), weights))
    (first, a), (second, b) = chosen
    assert first == second and set(first["val_aji"]) == {"components", "points", "convex"}
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_best_round_may_be_taken_instead_of_the_last(tmp_path, dataset, run_script):
    told = run_script(
        "code_detection/main.py", *options(tmp_path)[0], "--final-round", "best"
    ).stdout
    folder = tmp_path / "out" / RUN / "detection"
    scores = [torch.load(folder / f"round_{r}" / "best.pt", weights_only=True)["score"]
              for r in (0, 1)]  # fmt: skip
    assert f"detect: round {int(scores[1] > scores[0])}, " in told


def test_single_scripts_do_what_main_does(tmp_path, dataset):
    """prepare_data, train and test alone end where main ends."""
    (tmp_path / "single").mkdir()
    for stage, given in zip(STAGES, options(tmp_path, rounds=0), strict=True):
        run_here(stage, "main", *given)
        alone = [*given, "--root-save-dir", tmp_path / "single"]
        if stage == "code_seg":
            alone += ["--detection-results-dir", tmp_path / "out" / RUN / "detection"]
        for script in ("prepare_data", "train", "test"):
            run_here(stage, script, *alone)
    for path in ("detection/test/metrics.json", "segmentation/test/metrics.json"):
        assert read_json(tmp_path / "out" / RUN / path) == read_json(
            tmp_path / "single" / RUN / path
        )


def test_a_set_of_partial_points_without_masks(tmp_path, run_script):
    """The real case: no masks at all, ratio 1; only scores need masks."""
    folder = make_dataset(tmp_path / "data" / "tiny")
    for path in sorted((folder / "labels_instance").iterdir()):
        if path.name.startswith("train"):
            instances = read_instances(path, (64, 64))
            dots = np.zeros((64, 64), np.uint8)
            for label in (1, 2):
                row, col = np.argwhere(instances == label).mean(0).astype(int)
                dots[row, col] = 255
            name = path.name.replace("_label.tif", "_label_point.png")
            write_png(folder / "labels_point" / name, dots)
    shutil.rmtree(folder / "labels_instance")
    detection, seg = options(tmp_path, "--ratio", 1, rounds=0)
    told = run_script("code_detection/main.py", *detection).stdout
    assert "4 of 4 points annotated" in told and "no points for the validation" in told
    told = run_script("code_seg/main.py", *seg, "--mask-epochs", 1).stdout
    assert "no masks to score against" in told
    out = tmp_path / "out" / "tiny" / "ratio_1" / "repeat_1" / "segmentation"
    chosen = read_json(out / "selection.json")
    # The likelihoods of labels that differ do not compare: the first network is not asked.
    assert chosen["instances"] == "convex"
    assert chosen["checkpoint"] in ("masks/best.pt", "crf/best.pt")
    assert (out / "test" / "test0_instances.tif").is_file()


def test_a_second_network_learns_the_nuclei_of_the_first(tmp_path, dataset, run_script):
    detection, seg = options(tmp_path, rounds=0)
    seg += ["--mask-epochs", 2]
    run_script("code_detection/main.py", *detection)
    told = run_script("code_seg/main.py", *seg).stdout
    assert [line.split(": ")[0] for line in told.splitlines() if line.startswith("[")] == [
        "[1/8] prepare", "[2/8] train with labels", "[3/8] labels of the masks",
        "[4/8] train with masks", "[5/8] train with crf", "[6/8] select", "[7/8] test",
        "[8/8] pictures",
    ]  # fmt: skip
    out = tmp_path / "out" / RUN / "segmentation"
    networks = [load_state(out / p / "best.pt") for p in ("labels", "masks", "crf")]
    assert set(read_json(out / "selection.json")["val_score"]) == {"labels", "masks", "crf"}
    assert len(read_table(out / "masks" / "log.csv")["epoch"]) == 2
    first = [n["network"]["encoder.conv1.weight"] for n in networks]
    # The second begins anew, the third goes on from it with a tenth of the steps.
    assert (first[1] - first[2]).abs().mean() < 0.3 * (first[1] - first[0]).abs().mean()
    errors = read_json(out / "mask_label_errors.json")
    assert set(errors["images"]) == {"train0", "train1", "val0"}
    assert f"{errors['mean_train']['wrong']:.1%} wrong" in told

    # Single scripts end there, too; and it takes the annotated nuclei alone if asked to.
    alone = ["--save-dir", tmp_path / "single",
             "--detection-results-dir", tmp_path / "out" / RUN / "detection"]  # fmt: skip
    for script in ("prepare_data", "train", "test"):
        run_here("code_seg", script, *seg, *alone)
    same = "test/metrics.json"
    assert read_json(out / same) == read_json(tmp_path / "single" / same)
    run_here("code_seg", "prepare_data", *seg, *alone)
    run_here("code_seg", "train", *seg, *alone, "--mask-points", "annotated")
    fewer = read_json(tmp_path / "single" / "mask_label_errors.json")["images"]
    assert fewer["train0"]["ignored"] >= errors["images"]["train0"]["ignored"]
    assert fewer["val0"] == errors["images"]["val0"]  # where nothing is annotated


@pytest.mark.parametrize("shape", [(40, 30), (33, 150), (129, 70)])
def test_images_of_any_shape(tmp_path, run_script, shape):
    """D24: also smaller than a patch or a crop."""
    make_dataset(tmp_path / "data" / "tiny", shape=shape)
    detection, seg = options(tmp_path, rounds=0)
    run_script("code_detection/main.py", *detection)
    run_script("code_seg/main.py", *seg, "--crf-epochs", 0)
    out = tmp_path / "out" / RUN / "segmentation" / "test"
    read_instances(out / "test0_instances.tif", shape)


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
    done = run_script("code_detection/main.py", *options(tmp_path)[0], code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert named in done.stderr and "Traceback" not in done.stderr
    written = [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".pt", ".tmp")]
    assert not written


def test_after_the_input_is_mended_the_same_command_works(tmp_path, dataset, run_script):
    label = dataset / "labels_instance" / "train0_label.tif"
    whole = label.read_bytes()
    label.write_bytes(whole[:100])
    command = ["code_detection/main.py", *options(tmp_path, rounds=0)[0]]
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
    detection, seg = options(tmp_path, rounds=0)
    assert "1 of 1 points" in run_script("code_detection/main.py", *detection).stdout
    run_script("code_seg/main.py", *seg)


def test_segmentation_without_detection_says_what_to_run(tmp_path, dataset, run_script):
    done = run_script("code_seg/main.py", *options(tmp_path)[1], code=2)
    assert "run stage 1 first" in done.stderr and done.stderr.count("\n") == 1


def test_a_read_only_output_folder_is_named(tmp_path, dataset, run_script):
    (tmp_path / "out").write_text("a file, not a folder")
    done = run_script("code_detection/main.py", *options(tmp_path)[0], code=2)
    assert "out" in done.stderr and "Traceback" not in done.stderr


def bash(*arguments, **keywords):
    return subprocess.run(
        ["bash", PROJECT / "run.sh", *map(str, arguments)],
        capture_output=True, text=True, **keywords,
    )  # fmt: skip


def test_run_sh_chains_both_stages(experiment):
    told = experiment.told
    assert "== tiny, ratio 0.5, repeat 2 of 2: segmentation" in told
    assert "report.html" in told and "_overlay.png" in told
    # What it will take is told before it begins.
    plan = told[: told.index("== tiny")]
    assert "[plan] cpu: about 1 min for 2 repeats" in plan and "takes up to" in plan
    for stage in ("detection", "segmentation"):
        saved = [
            read_json(experiment.root / f"repeat_{k}" / stage / "options.json") for k in (1, 2)
        ]
        assert [s["options"]["repeat"] for s in saved] == [1, 2]
        assert saved[0]["machine"]["cores"] >= 1 and saved[0]["machine"]["device"] == "cpu"
    points = [
        (experiment.root / f"repeat_{k}/detection/points/train0.csv").read_text() for k in (1, 2)
    ]
    assert points[0] != points[1]  # D22: repeats have their own folders and points


def test_run_sh_help_and_errors(tmp_path, dataset):
    done = bash("--help")
    assert done.returncode == 0 and "--seg OPTIONS" in done.stdout
    assert bash("--repeats", "0").returncode == 2
    assert bash("--ratio").returncode == 2
    place = ["--dataset", "tiny", "--data-root", tmp_path / "data", "--root-save-dir",
             tmp_path / "out"]  # fmt: skip
    for wrong in (["--no-such-option"], ["--seg", "--no-such-option"]):  # before any training
        done = bash(*place, *wrong)
        assert done.returncode == 2 and "no such option" in done.stderr
        assert not (tmp_path / "out").exists()


def test_the_threshold_is_chosen_by_validation_images(tmp_path, dataset, monkeypatch):
    """--auto-threshold: true nuclei reach 0.4 and everything else 0.28, so 0.3 or 0.35 is best."""
    from code_common.config import parse
    from code_detection import train
    from code_detection.options import Options
    from code_detection.prepare_data import prepare

    arguments = [str(a) for a in options(tmp_path)[0]]
    chosen = parse(Options, "", [*arguments, "--auto-threshold"])
    fixed = parse(Options, "", [*arguments, "--threshold", "0.45"])
    prepare(chosen)
    truth = read_instances(dataset / "labels_instance" / "val0_label.tif", (64, 64))
    prob = np.where(truth > 0, 0.4, 0.0).astype(np.float32)
    free = np.argwhere((truth == 0)[20:44, 20:44])[0] + 20
    prob[free[0] : free[0] + 5, free[1] : free[1] + 5] = np.maximum(
        prob[free[0] : free[0] + 5, free[1] : free[1] + 5], 0.28
    )
    monkeypatch.setattr(train, "predict_prob", lambda *_: prob)
    scores = train.make_validate(chosen, None, {})()
    assert scores["threshold"] in (0.3, 0.35) and scores["score"] == scores["f1"] == 1
    scores = train.make_validate(fixed, None, {})()
    assert "threshold" not in scores and scores["f1"] == 0


def test_a_narrow_run_with_views_and_its_own_threshold(tmp_path, dataset):
    """Everything after training takes shape and threshold from what training wrote."""
    from code_common.inference import trained_run as bundle

    more = ["--width", "0.25", "--views", "4", "--stain-augmentation", "0.2"]
    more += ["--stem-stride", "1"]
    first = options(tmp_path, *more, rounds=0)[0]
    first += ["--auto-threshold", "--unknown-weight", "0.1", "--loss", "bce"]
    run_here("code_detection", "main", *first)
    run_here("code_seg", "main", *options(tmp_path, *more)[1])
    out = tmp_path / "out" / RUN
    scores = torch.load(out / "detection/round_0/best.pt", weights_only=True)["scores"]
    stages = bundle.load(out, torch.device("cpu"))
    assert stages["detection"].settings["threshold"] == scores["threshold"]
    for network in (stage.network for stage in stages.values()):
        assert (network.width, network.stem_stride) == (0.25, 1)


def test_an_ensemble_from_end_to_end(tmp_path, dataset, run_script):
    """Both phases of stage 2 train each network from its own; the rest sees one network."""
    from code_common.inference import trained_run as bundle

    first, second = options(tmp_path, "--members", "2", "--width", "0.25", rounds=0)
    run_here("code_detection", "main", *first, "--auto-threshold")
    run_here("code_seg", "main", *second)
    out = tmp_path / "out" / RUN
    for folder in ("detection/round_0", "segmentation/labels", "segmentation/crf"):
        paths = [out / folder / f"member_{k}" / "best.pt" for k in (1, 2)]
        one, two = (torch.load(path, weights_only=True)["network"] for path in paths)
        assert not torch.equal(one["encoder.conv1.weight"], two["encoder.conv1.weight"])
        both = torch.load(out / folder / "best.pt", weights_only=True)
        assert both["members"] == 2 and np.isfinite(both["score"])
        assert len(read_table(out / folder / "log.csv")["epoch"]) == 1
    assert not list(out.rglob("last.pt"))
    # Fine-tuning began from the member's own weights: one epoch at lr / 10 changes them little.
    before, after = (
        torch.load(out / f"segmentation/{phase}/member_2/best.pt", weights_only=True)["network"]
        for phase in ("labels", "crf")
    )
    moved, apart = ((before["head.weight"] - other["head.weight"]).norm() for other in (after, one))
    assert 0 < moved < apart / 3
    stages = bundle.load(out, torch.device("cpu"))
    assert all(len(stage.network.networks) == 2 for stage in stages.values())
    place = ["--root-save-dir", tmp_path / "out", "--dataset", "tiny", "--ratio", "0.5"]
    run_script("tools/report.py", *place, "--repeats", 1)
    assert "2 networks resnet18" in (out.parent / "summary.md").read_text()
