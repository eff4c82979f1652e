"""The report of an experiment holds what there is, and changes nothing."""

import re
import shutil

import numpy as np
import pytest
from conftest import digest

from code_common.errors import InputError
from code_common.files.images import read_image
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    marker_path,
    metrics_path,
    options_path,
    points_path,
    results_folder,
)
from code_common.files.writing import write_json, write_points
from code_common.reporting.album import BAND
from code_common.reporting.report import OVERVIEW_HEIGHT
from code_common.reporting.results import read_repeat, share
from code_common.reporting.sections import annotated, make_sections, run_section, training_words
from tools.report import main, parse_arguments

SECTIONS = (
    "Scores",
    "What ran",
    "Curves",
    "Test images",
    "Results",
    "Nucleus areas",
    "Stage 1, detection",
    "Stage 2, labels and crops",
    "Label errors",
    "Time",
    "All options",
)
FIGURES = (
    "The data set and its points",
    "Extended Gaussian mask",
    "Training crops as the",
    "Self-training, training image train0",
    "Background propagation",
    "Labels of training image train0",
    "Test images: worst, median and best AJI",
    "by each method",
)


def report(root, *more):
    """Run the script on a folder DATASET/ratio_R."""
    run = ["--root-save-dir", root.parents[1], "--dataset", root.parent.name, "--ratio", 0.5]
    main(parse_arguments([str(word) for word in (*run, *more)]))


@pytest.fixture
def detection_only(experiment, tmp_path):
    """The folder of an experiment with stage 1 of one repeat alone."""
    root = tmp_path / "out" / "tiny" / "ratio_0.5"
    shutil.copytree(experiment.root / "repeat_1" / "detection", root / "repeat_1" / "detection")
    return root


def test_every_section_and_figure_is_in_the_report(experiment):
    html = (experiment.root / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", html) == list(SECTIONS)
    assert [title for title in FIGURES if title not in html] == []
    assert "CRF starts" in html and "round 1" in html and " ± " in html


def test_the_report_loads_nothing(experiment):
    html = (experiment.root / "report.html").read_text()
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", html)


def test_the_summary_holds_scores_over_the_repeats(experiment):
    summary = (experiment.root / "summary.md").read_text()
    ajis = []
    for repeat in ("repeat_1", "repeat_2"):
        metrics = read_json(metrics_path(results_folder(experiment.root / repeat / "segmentation")))
        ajis.append(metrics["mean"]["points"]["all"]["aji"])
    assert f"{np.mean(ajis):.3f} ± {np.std(ajis, ddof=1):.3f}" in summary
    assert "4 points in 2 images" in summary
    assert "95 % bootstrap interval over images, by patient" in summary


def test_the_overview_has_five_panels_in_a_row(experiment):
    picture = read_image(experiment.root / "overview.png")
    assert picture.shape[0] == OVERVIEW_HEIGHT + BAND
    assert picture.shape[1] > 5 * OVERVIEW_HEIGHT


@pytest.mark.parametrize("stage", ["detection", "segmentation"])
def test_scores_are_of_three_patients(experiment, stage):
    assert (
        read_json(metrics_path(results_folder(experiment.root / "repeat_1" / stage)))["patients"]
        == 3
    )


def test_scores_lie_within_their_intervals(experiment):
    metrics = read_json(metrics_path(results_folder(experiment.root / "repeat_1" / "segmentation")))
    for name, value in metrics["mean"]["points"]["all"].items():
        low, high = metrics["interval"]["points"][name]
        assert low - 1e-9 <= value <= high + 1e-9


def test_the_script_prints_scores_and_places(experiment, tmp_path, capsys):
    root = tmp_path / "out" / "tiny" / "ratio_0.5"
    shutil.copytree(experiment.root, root)
    report(root, "--repeats", 2, "--seconds", 61)
    printed = capsys.readouterr().out
    assert "Done in 1:01. tiny: 50% of the points, 2 repeats" in printed
    assert re.search(r"^  points +pixel_f1 \d\.\d{3} ± ", printed, re.M)
    assert f"{root / 'report.html'} (and summary.md)" in printed
    assert f"{root}/repeat_1/segmentation/test/*_overlay.png" in printed


def test_a_report_of_one_stage_and_repeat(detection_only, capsys):
    report(detection_only)
    assert "detection     f1" in capsys.readouterr().out
    summary = (detection_only / "summary.md").read_text()
    assert "[" in summary and "segmentation: code and machine" not in summary
    assert not (detection_only / "overview.png").exists()
    assert not list(detection_only.rglob("*.tmp"))


def test_a_report_without_scores_says_so(detection_only):
    metrics_path(results_folder(detection_only / "repeat_1" / "detection")).unlink()
    report(detection_only)
    assert "No test image has labels" in (detection_only / "summary.md").read_text()


def test_a_missing_repeat_is_named(detection_only):
    with pytest.raises(InputError, match="repeat_2: no such run"):
        report(detection_only, "--repeats", 2)


def test_a_folder_of_another_program_is_refused(detection_only):
    write_json(options_path(detection_only / "repeat_1" / "detection"), ["no", "options"])
    with pytest.raises(InputError, match=r"options.json: expected"):
        report(detection_only)


def test_making_the_report_changes_no_result(experiment):
    before = digest(experiment.root / "repeat_1")
    make_sections([read_repeat(experiment.root / "repeat_1")])
    assert digest(experiment.root / "repeat_1") == before


@pytest.mark.parametrize(
    ("second", "crf", "expected"),
    [
        (0, 20, "100 epochs, 20 with the dense CRF loss (exact); batches of 8"),
        (60, 0, "100 epochs, 60 of a second network on the first one's nuclei; batches of 8"),
    ],
)
def test_the_report_says_how_stage_2_was_trained(second, crf, expected):
    options = dict(model="resnet18", pretrained="none", batch_size=8, lr=1e-3, epochs=100)
    options |= dict(self_training_epochs=second, crf_epochs=crf)
    words = training_words("segmentation", {"options": options, "crf_backend_used": "exact"})
    assert expected in words and words.startswith("resnet18, first weights: none")


@pytest.mark.parametrize(
    ("rounds", "expected"), [(0, "; 1 round of 9 epochs;"), (3, "; 4 rounds of 9 epochs;")]
)
def test_the_report_counts_rounds(rounds, expected):
    options = dict(model="resnet18", pretrained="none", batch_size=8, lr=1e-3, epochs=9)
    assert expected in training_words("detection", {"options": options | {"rounds": rounds}})


def test_the_report_tells_parts_of_a_batch_and_the_number_format():
    options = dict(model="resnet18", pretrained="none", batch_size=8, lr=1e-3, epochs=9, rounds=0)
    plain = training_words("detection", {"options": options})  # an older run
    assert plain.endswith("; batches of 8, lr 0.001")
    saved = {"options": options | {"batch_parts": 2}, "precision_used": "bf16"}
    assert training_words("detection", saved).endswith("; batches of 8 in 2 parts, lr 0.001, bf16")


def test_points_that_are_given_are_no_share_of_the_nuclei(tmp_path):
    assert share(1) == "all points given" and share(0.1) == "10% of the points"
    write_points(points_path(tmp_path, "a"), np.zeros((3, 2), int))
    assert annotated(tmp_path, 1) == "all points given; 3 points in 1 images"


@pytest.fixture
def two_repeats(experiment, tmp_path):
    """The folder of an experiment with two repeats."""
    root = tmp_path / "out" / "tiny" / "ratio_0.5"
    shutil.copytree(experiment.root, root)
    return root


@pytest.mark.parametrize("lacking", [1, 2])
def test_a_report_of_repeats_of_which_one_is_half_done(two_repeats, capsys, lacking):
    shutil.rmtree(two_repeats / f"repeat_{lacking}" / "segmentation")
    report(two_repeats, "--repeats", 2)
    assert re.search(r"^  points .* aji \d\.\d{3} \(1 of 2\)", capsys.readouterr().out, re.M)
    summary = (two_repeats / "summary.md").read_text()
    assert "(1 of 2)" in summary and re.search(rf"\| repeat_{lacking} \| [^|]+ \| +\|", summary)


def test_a_report_says_what_does_not_fit(two_repeats, capsys):
    """Repeats of other options, and those that it leaves out."""
    shutil.copytree(two_repeats / "repeat_2", two_repeats / "repeat_3")
    path = options_path(two_repeats / "repeat_2" / "segmentation")
    saved = read_json(path)
    write_json(path, {**saved, "options": {**saved["options"], "epochs": 77, "device": "cuda"}})
    report(two_repeats, "--repeats", 2)
    said = "repeat_2/segmentation: other options than repeat_1: epochs 77 instead of 1"
    told, summary = capsys.readouterr().out, (two_repeats / "summary.md").read_text()
    for text in (told, summary):
        assert f"{said}\n" in text.replace(" |\n", "\n")
        assert "not in this report: repeat_3;" in text


def test_a_run_that_is_being_done_again_has_no_report(two_repeats):
    marker = marker_path(two_repeats / "repeat_1" / "detection", "detect")
    write_json(marker, {"files": {}})
    with pytest.raises(InputError, match="'detect' is to be done again; finish this run first"):
        report(two_repeats)


def test_a_report_says_which_repeat_is_of_other_data(two_repeats, capsys):
    """The repeats themselves, of other points and detections, are of the same data."""
    report(two_repeats, "--repeats", 2)
    assert "made of" not in capsys.readouterr().out
    path = options_path(two_repeats / "repeat_2" / "segmentation")
    write_json(path, read_json(path) | {"images": "others"})
    report(two_repeats, "--repeats", 2)
    words = "repeat_2/segmentation: made of other images, labels or sets than repeat_1/detection"
    assert words in capsys.readouterr().out
    assert words in (two_repeats / "summary.md").read_text()


def test_a_copy_counts_as_no_repeat(two_repeats, capsys):
    shutil.rmtree(two_repeats / "repeat_2")
    shutil.copytree(two_repeats / "repeat_1", two_repeats / "repeat_2")
    report(two_repeats, "--repeats", 2)
    told, summary = capsys.readouterr().out, (two_repeats / "summary.md").read_text()
    words = "repeat_2: a copy of repeat_1, with its --repeat and seed"
    assert words in told and words in summary
    assert "tiny: 50% of the points, 1 repeat\n" in told and "±" not in told


def test_points_that_stage_2_learnt_from_are_not_those_that_are_annotated(experiment, tmp_path):
    """Stage 2 alone: its own points are annotated and detected ones together."""
    repeat = tmp_path / "repeat_1"
    stage_1 = experiment.root / "repeat_1" / "detection"
    shutil.copytree(experiment.root / "repeat_1" / "segmentation", repeat / "segmentation")
    path = options_path(repeat / "segmentation")
    number = annotated(stage_1, 0.5)
    for elsewhere, said in ((str(stage_1), number), (None, "their number is not known")):
        saved = read_json(path)
        saved["options"]["detection_results_dir"] = elsewhere
        write_json(path, saved)
        rows = dict(run_section([read_repeat(repeat)]).tables[0].rows)
        assert rows["annotated nuclei"].endswith(said) and " points in " in number
