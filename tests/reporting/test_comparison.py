"""Experiments are compared on the images that they share."""

import re

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.run_folder import metrics_path, options_path, results_folder
from code_common.files.writing import write_json
from code_common.reporting.results import SHOWN
from tools.compare import main, parse_arguments

METHODS = ("components", "points")
NAMES = [f"TCGA-AA-{k // 2:04d}-{k}" for k in range(8)]  # two images of each patient
AJI = np.linspace(0.3, 0.7, 8)  # of these images


def compare(out, *runs):
    main(parse_arguments(["--runs", *map(str, runs), "--out", str(out)]))


def fake_run(folder, ratio, ajis, f1):
    """A repeat's results, as the stages write them. ajis: of each image, by both methods."""
    for stage in ("detection", "segmentation"):
        options = {"ratio": ratio, "dataset": "fake", "patient": "TCGA-..-[^-]+"}
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
    """0.1 better on every image; 0.05 worse on the six that both scored."""
    text = (compared / "compare.md").read_text()
    assert "| fake 10% | 8 | +0.100 [+0.100, +0.100], 100% |" in text
    assert "| mine 10% | 6 | -0.050 [-0.050, -0.050], 100% |" in text


def test_the_chart_is_in_the_page_and_a_file_of_its_own(compared):
    svg = (compared / "aji_against_annotation.svg").read_text()
    assert "fake, points" in svg and "mine, components" in svg
    page = (compared / "compare.html").read_text()
    assert svg in page and "http" not in re.sub(r'xmlns="[^"]*"', "", page)
    names = {path.name for path in compared.iterdir()}
    assert names == {"compare.html", "compare.md", "aji_against_annotation.svg"}


def test_a_run_is_no_better_than_itself(experiment, tmp_path):
    compare(tmp_path, experiment.root.parent, f"again={experiment.root}")
    assert "| again 50% | 3 | +0.000 [+0.000, +0.000], 0%" in (tmp_path / "compare.md").read_text()


def test_a_folder_without_finished_runs_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path.name}: no finished runs"):
        compare(tmp_path / "out", tmp_path)
