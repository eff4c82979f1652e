"""Experiments are compared on the images that they share."""

import re
import shutil

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    marker_path,
    metrics_path,
    options_path,
    ratio_folder,
    repeat_folder,
    results_folder,
    selection_path,
)
from code_common.files.writing import write_json
from code_common.reporting.results import SHOWN, read_repeat, score_lines
from code_common.reporting.sections import make_sections
from tools.compare import main, parse_arguments

METHODS = ("components", "points")
NAMES = [f"TCGA-AA-{k // 2:04d}-{k}" for k in range(8)]  # two images of each patient
TRAINED = {"random_seed": 1, "model": "resnet18", "pretrained": "none", "batch_size": 8, "lr": 0.1,
           "epochs": 1, "rounds": 0, "crf_epochs": 0}  # fmt: skip
AJI = np.linspace(0.3, 0.7, 8)  # of these images


def compare(out, *runs):
    main(parse_arguments(["--runs", *map(str, runs), "--out", str(out)]))


def fake_run(folder, ratio, ajis, f1, **changes):
    """A repeat's results, as the stages write them. ajis: of each image, by both methods."""
    for stage in ("detection", "segmentation"):
        options = {"ratio": ratio, "dataset": "fake", "patient": "TCGA-..-[^-]+", **TRAINED}
        options |= changes
        write_json(options_path(folder / stage), {"options": options, "commit": "abc"})
    images = {
        name: dict.fromkeys(SHOWN, aji) for name, aji in zip(NAMES, ajis.tolist(), strict=False)
    }
    mean = {"all": dict.fromkeys(SHOWN, float(np.mean(ajis)))}
    metrics = {
        "instances": "points",
        "mean": dict.fromkeys(METHODS, mean),
        "interval": {},
        "images": dict.fromkeys(METHODS, images),
    }
    write_json(metrics_path(results_folder(folder / "segmentation")), metrics)
    write_json(
        metrics_path(results_folder(folder / "detection")),
        {"pooled": {"all": {"f1": f1}}, "images": {}},
    )


@pytest.fixture
def compared(tmp_path, capsys):
    """Two ratios of 'fake', in two repeats each, and 'mine', which scored six of eight images."""
    for ratio, gain in ((0.05, 0.0), (0.1, 0.1)):
        for repeat, shift in ((1, -0.02), (2, 0.02)):
            folder = tmp_path / f"fake/ratio_{ratio:g}/repeat_{repeat}"
            fake_run(folder, ratio, AJI + gain + shift, 0.6 + gain)
    fake_run(tmp_path / "other/repeat_1", 0.1, AJI[:6] - 0.05, 0.5)
    compare(tmp_path / "compared", tmp_path / "fake", f"mine={tmp_path / 'other'}")
    return tmp_path / "compared"


def test_scores_are_means_and_deviations_over_repeats(compared, capsys):
    text = (compared / "compare.md").read_text()
    assert "0.500 ± 0.028" in text and "0.600 ± 0.028" in text


def test_scores_are_printed(tmp_path, compared, capsys):
    compare(tmp_path / "again", tmp_path / "fake")
    assert "run fake 10%  repeats 2" in capsys.readouterr().out


def test_differences_are_over_the_images_that_both_scored(compared):
    """0.1 better on every image; on the six that both scored worse than the repeat of its number
    and ratio.
    """
    text = (compared / "compare.md").read_text()
    assert "| fake 10% | fake 5% | 1, 2 | 8 | +0.100 [+0.100, +0.100], 100% |" in text
    assert "| mine 10% | fake 10% | 1 | 6 | -0.130 [-0.130, -0.130], 100% |" in text


def test_a_variant_is_compared_at_its_own_ratio_and_repeats(tmp_path):
    """Equal to the first one in each ratio and repeat; of the second repeat there is only one."""
    for ratio, gain in ((0.05, 0.0), (0.1, 0.1)):
        for name, repeats in (("paper", (1, 2)), ("smooth", (1,))):
            for repeat in repeats:
                folder = tmp_path / name / f"ratio_{ratio:g}/repeat_{repeat}"
                fake_run(folder, ratio, AJI + gain + repeat / 20, 0.5)
    compare(tmp_path / "out", tmp_path / "paper", tmp_path / "smooth")
    text = (tmp_path / "out" / "compare.md").read_text()
    for ratio in ("5%", "10%"):
        assert f"| smooth {ratio} | paper {ratio} | 1 | 8 | +0.000 [" in text


def test_runs_without_a_common_repeat_are_compared_by_all(tmp_path):
    for name, repeat, gain in (("a", 1, 0), ("b", 2, 0.1)):
        fake_run(tmp_path / name / f"repeat_{repeat}", 0.1, AJI + gain, 0.5)
    compare(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| b 10% | a 10% | all, none is shared | 8 | +0.100 [" in text


def test_runs_of_two_data_sets_under_one_name_are_told_apart(tmp_path, capsys):
    for ratio, dataset in ((0.05, "MO"), (0.1, "TNBC")):
        folder = tmp_path / dataset / f"ratio_{ratio}/repeat_1"
        fake_run(folder, ratio, AJI, 0.5, dataset=dataset)
    compare(tmp_path / "out", *(f"mine={tmp_path / name}" for name in ("MO", "TNBC")))
    told = capsys.readouterr().out
    assert "run mine 5% " in told and "run mine, TNBC 10% " in told


def test_a_run_with_validation_masks_alone_is_compared(tmp_path, capsys):
    """Choices are made by its column; there are no test scores."""
    folder = tmp_path / "fake/ratio_0.1/repeat_1"
    fake_run(folder, 0.1, AJI, 0.5)
    for stage in ("detection", "segmentation"):
        shutil.rmtree(results_folder(folder / stage))
    chosen = {"instances": "convex", "val_aji": {"components": 0.5, "convex": 0.625}}
    write_json(selection_path(folder / "segmentation"), chosen)
    compare(tmp_path / "out", tmp_path / "fake")
    assert "run fake 10%  repeats 1  validation AJI 0.625" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({1: "ds", 2: "d"}, "minutes 20.0 (1 of 2)"),
        ({1: "s", 2: "s"}, "minutes 10.0 ± 0.0, segmentation alone"),
        ({1: "ds", 2: "ds"}, "minutes 20.0 ± 0.0"),
    ],
)
def test_minutes_are_those_of_whole_repeats(tmp_path, capsys, steps, told):
    for repeat, stages in steps.items():
        folder = tmp_path / f"fake/ratio_0.1/repeat_{repeat}"
        fake_run(folder, 0.1, AJI, 0.5, repeat=repeat)
        for letter in stages:
            stage = {"d": "detection", "s": "segmentation"}[letter]
            write_json(marker_path(folder / stage, "test"), {"seconds": 600.0, "files": {}})
    compare(tmp_path / "out", tmp_path / "fake")
    assert any(line.endswith(told) for line in capsys.readouterr().out.splitlines())


def test_the_chart_is_in_the_page_and_a_file_of_its_own(compared):
    svg = (compared / "aji_against_annotation.svg").read_text()
    assert "fake, points" in svg and "mine, components" in svg
    page = (compared / "compare.html").read_text()
    assert svg in page and "http" not in re.sub(r'xmlns="[^"]*"', "", page)
    names = {path.name for path in compared.iterdir()}
    assert names == {"compare.html", "compare.md", "aji_against_annotation.svg"}


def test_a_run_is_no_better_than_itself(experiment, tmp_path):
    compare(tmp_path, experiment.root.parent, f"again={experiment.root}")
    text = (tmp_path / "compare.md").read_text()
    assert "| again 50% | tiny 50% | 1, 2 | 3 | +0.000 [+0.000, +0.000], 0%" in text


def test_a_folder_without_scores_says_what_it_holds(tmp_path):
    (tmp_path / "killed" / "ratio_0.1" / "repeat_1").mkdir(parents=True)
    for name, said in (
        ("", "no folder ratio_R"),
        ("no", "no such folder"),
        ("killed", "1 in it that are unfinished, or without masks of validation and test images"),
    ):
        with pytest.raises(InputError, match=f"no run with scores; {said}"):
            compare(tmp_path / "out", tmp_path / name)


def test_experiments_of_one_name_are_told_apart(tmp_path, capsys):
    for name in ("a", "b"):
        fake_run(tmp_path / name / "MO/ratio_0.1/repeat_1", 0.1, AJI, 0.5)
    compare(tmp_path / "out", tmp_path / "a" / "MO", tmp_path / "b" / "MO")
    assert f"run MO ({tmp_path}/b/MO/ratio_0.1) 10%" in capsys.readouterr().out


def test_a_name_may_hold_an_equals_sign_and_is_no_html(tmp_path):
    fake_run(tmp_path / "a=<b>|" / "repeat_1", 0.1, AJI, 0.5)
    compare(tmp_path / "out", tmp_path / "a=<b>|")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "<b>" not in text and "a=&lt;b>\\| 10%" in text
    assert "<b>" not in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize("copy", ["fake/ratio_0.1/repeat_1_old", "fake/ratio_0.1_old/repeat_1",
                                  "fake/ratio_0.1/repeat_", "fake/ratio_/repeat_1",
                                  "fake/ratio_0.1/repeat_1.5"])  # fmt: skip
def test_a_copy_of_a_run_is_no_run(tmp_path, capsys, copy):
    fake_run(tmp_path / "fake/ratio_0.1/repeat_1", 0.1, AJI, 0.5)
    shutil.copytree(tmp_path / "fake/ratio_0.1/repeat_1", tmp_path / copy)
    compare(tmp_path / "out", tmp_path / "fake")
    assert "run fake 10%  repeats 1  " in capsys.readouterr().out
    assert (tmp_path / "out" / "compare.md").read_text().count("fake/ratio_0.1/repeat_1 ") == 1


@pytest.mark.parametrize("ratio", [1e-05, 0.1, 1.0])
def test_every_share_names_a_run(tmp_path, capsys, ratio):
    fake_run(repeat_folder(ratio_folder(tmp_path, "fake", ratio), 10), ratio, AJI, 0.5)
    compare(tmp_path / "out", tmp_path / "fake")
    assert "repeats 1  " in capsys.readouterr().out


@pytest.mark.parametrize("unfinished", [1, 2])
def test_a_repeat_without_one_stage_leaves_the_others_scores(tmp_path, capsys, unfinished):
    """As a sweep leaves it that is out of time."""
    for ratio, gain in ((0.05, 0), (0.1, 0.1)):
        for repeat in (1, 2):
            fake_run(tmp_path / f"fake/ratio_{ratio}/repeat_{repeat}", ratio, AJI + gain, 0.5)
    shutil.rmtree(tmp_path / f"fake/ratio_0.1/repeat_{unfinished}/segmentation")
    compare(tmp_path / "out", tmp_path / "fake")
    told = capsys.readouterr().out
    assert "run fake 10%  repeats 2  detection F1 0.500 ± 0.000  " in told
    assert "aji, points 0.600 (1 of 2)" in told and "aji, points 0.500 ± 0.000" in told
    text = (tmp_path / "out" / "compare.md").read_text()
    assert f"| fake 10% | fake 5% | {3 - unfinished} | 8 | +0.100 [" in text


def test_images_of_another_data_set_are_no_pairs(tmp_path):
    fake_run(tmp_path / "a/repeat_1", 0.1, AJI, 0.5)
    fake_run(tmp_path / "b/repeat_1", 0.1, AJI + 0.1, 0.5, dataset="other")
    compare(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    assert "| b 10% | a 10% | 1 | 0 |   |" in (tmp_path / "out" / "compare.md").read_text()


def test_repeats_of_other_options_are_told(tmp_path, capsys):
    for repeat, changes in ((1, {}), (2, {"workers": 3}), (3, {"epochs": 77, "lr": 0.5})):
        folder = tmp_path / f"fake/ratio_0.1/repeat_{repeat}"
        fake_run(folder, 0.1, AJI, 0.5, **{"workers": 0, "repeat": repeat} | changes)
    compare(tmp_path / "out", tmp_path / "fake")
    told, text = capsys.readouterr().out, (tmp_path / "out" / "compare.md").read_text()
    words = "segmentation: other options than repeat_1: lr 0.5 instead of 0.1, epochs 77 instead"
    assert f"repeat_3/{words}" in told and words in text
    assert told.count("other options") == 2  # of both stages


def test_a_run_of_an_older_version_has_no_scores_of_centres(tmp_path, capsys):
    """What it has is compared, and what it lacks is left empty."""
    old, new = tmp_path / "old/ratio_0.1/repeat_1", tmp_path / "new/ratio_0.1/repeat_1"
    for folder in (old, new):
        fake_run(folder, 0.1, AJI, 0.5)
    path = metrics_path(results_folder(old / "segmentation"))
    metrics = read_json(path)
    for table in ("mean", "images"):
        for scores in (s for rows in metrics[table].values() for s in rows.values()):
            scores.pop("centre_f1", None)
    write_json(path, metrics)
    compare(tmp_path / "out", tmp_path / "old", tmp_path / "new")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "nan" not in text and "| new 10% | old 10% | 1 | 8 | +0.000 [" in text
    repeats = [read_repeat(folder) for folder in (old, new)]
    assert "centre_f1 0.500 (1 of 2)" in "\n".join(score_lines(repeats))
    assert not any("centre" in line for line in score_lines(repeats[:1]))
    cells = [row for section in make_sections(repeats) for t in section.tables for row in t.rows]
    assert cells and not any("nan" in cell for row in cells for cell in row)


def test_a_run_that_is_being_done_again_is_left_out(tmp_path, capsys):
    for repeat in (1, 2):
        fake_run(tmp_path / f"fake/ratio_0.1/repeat_{repeat}", 0.1, AJI, 0.5)
    again = tmp_path / "fake/ratio_0.1/repeat_2/detection"
    write_json(marker_path(again, "train round 0"), {"files": {"round_0/best.pt": "abc"}})
    compare(tmp_path / "out", tmp_path / "fake")
    told = capsys.readouterr().out
    assert f"left out: {again}: 'train round 0' is to be done again" in told
    assert "repeats 1  " in told


@pytest.mark.parametrize("name", ["detection/options.json", "segmentation/test/metrics.json"])
def test_a_damaged_repeat_does_not_stop_the_others(tmp_path, capsys, name):
    for repeat in (1, 2):
        fake_run(tmp_path / f"fake/ratio_0.1/repeat_{repeat}", 0.1, AJI, 0.5)
    damaged = tmp_path / "fake/ratio_0.1/repeat_2" / name
    damaged.write_text("{")
    compare(tmp_path / "out", tmp_path / "fake")
    told = capsys.readouterr().out
    assert f"left out: {damaged}: not a readable JSON file" in told and "repeats 1  " in told


def note(folder, **facts):
    """Add facts to options.json of a run folder."""
    write_json(options_path(folder), read_json(options_path(folder)) | facts)


def made_of(folder, data, split="s", detections="d"):
    """Note what a repeat of `fake_run` was made of, as the stages do."""
    note(folder / "detection", contents=data, images=data, split=split)
    note(folder / "segmentation", contents=data + detections, images=data, split=split)


@pytest.mark.parametrize("other", [{"data": "new"}, {"data": "old", "split": "t"}])
def test_repeats_of_other_data_are_told(tmp_path, capsys, other):
    """Not those of other detections, which are other points' and another seed's."""
    for repeat, data in ((1, {"data": "old"}), (2, {"data": "old", "detections": "e"}), (3, other)):
        fake_run(tmp_path / f"fake/ratio_0.1/repeat_{repeat}", 0.1, AJI, 0.5, repeat=repeat)
        made_of(tmp_path / f"fake/ratio_0.1/repeat_{repeat}", **data)
    compare(tmp_path / "out", tmp_path / "fake")
    told, text = capsys.readouterr().out, (tmp_path / "out" / "compare.md").read_text()
    words = "made of other images, labels or sets than repeat_1/detection"
    for stage in ("detection", "segmentation"):
        assert f"repeat_3/{stage}: {words}" in told and f"repeat_3/{stage}: {words}" in text
    assert told.count("made of other") == 2 and "repeats 3  " in told


def test_stages_of_one_repeat_that_were_made_of_other_data_are_told(tmp_path, capsys):
    """Stage 1 was made anew after a test label was changed, and stage 2 was not."""
    folder = tmp_path / "fake/repeat_1"
    fake_run(folder, 0.1, AJI, 0.5)
    made_of(folder, "old")
    note(folder / "detection", contents="new")
    compare(tmp_path / "out", tmp_path / "fake")
    words = "repeat_1/segmentation: made of other images, labels or sets than repeat_1/detection"
    assert words in capsys.readouterr().out


def test_experiments_of_other_data_are_told(tmp_path, capsys):
    """But not of another data set, or where an older version did not note it."""
    runs = {"a": "old", "same": "old", "b": "new", "c": "new", "unknown": None, "alone": "old"}
    for name, data in runs.items():
        named = {"dataset": "other"} if name == "c" else {}
        fake_run(tmp_path / name / "repeat_1", 0.1, AJI, 0.5, **named)
        if data:
            made_of(tmp_path / name / "repeat_1", data)
    shutil.rmtree(tmp_path / "alone" / "repeat_1" / "detection")  # stage 1 lies elsewhere
    note(tmp_path / "alone" / "repeat_1" / "segmentation", images="new")
    compare(tmp_path / "out", *(tmp_path / name for name in runs))
    told, words = capsys.readouterr().out, "made of other images, labels or sets than a 10%;"
    assert f"b 10%: {words} images are paired by their names" in told
    assert f"alone 10%: {words}" in told and told.count("made of other") == 2


def test_a_copy_counts_as_no_repeat(tmp_path, capsys):
    """Nor does one that was tested again elsewhere; other data or options are no copy."""
    different = ({}, {"device": "cuda"}, {"random_seed": 2}, {"epochs": 7}, {})
    for number, changes in enumerate(different, 1):
        folder = tmp_path / f"fake/ratio_0.1/repeat_{number}"
        fake_run(folder, 0.1, AJI, 0.5, **{"repeat": 1, "device": "cpu"} | changes)
        made_of(folder, "new" if number == 5 else "old")
    compare(tmp_path / "out", tmp_path / "fake")
    told, text = capsys.readouterr().out, (tmp_path / "out" / "compare.md").read_text()
    words = "ratio_0.1/repeat_2: a copy of repeat_1, with its --repeat and seed"
    assert f"left out: {tmp_path}/fake/{words}" in told and words in text
    assert told.count("a copy of") == 1 and "repeats 4  " in told
    assert "ratio_0.1/repeat_2 |" not in text and "ratio_0.1/repeat_3 |" in text


def test_a_copy_of_one_stage_is_told(tmp_path, capsys):
    for number in (1, 2):
        fake_run(tmp_path / f"fake/repeat_{number}", 0.1, AJI, 0.5, repeat=number)
    shutil.rmtree(tmp_path / "fake/repeat_2/detection")
    shutil.copytree(tmp_path / "fake/repeat_1/detection", tmp_path / "fake/repeat_2/detection")
    compare(tmp_path / "out", tmp_path / "fake")
    told = capsys.readouterr().out
    assert "repeat_2/detection: a copy of that of repeat_1, no repeat of its own" in told
    assert "repeats 2  " in told
