"""The model that comes with the project: its file, its card, and a first look without training."""

import numpy as np
import pytest

from code_common.arrays import points_from_instances
from code_common.detection_scores import count
from code_common.files.images import read_label
from code_common.files.writing import write_png
from code_common.inference.trained_run import load_trained_run
from code_common.launch import choose_device
from code_common.options import PACKAGED, InferenceOptions
from code_seg.metrics import score
from data.make_sample import make_tile

CARD = PACKAGED.with_suffix(".md").read_text(encoding="utf-8")


def test_it_is_small_and_holds_both_stages():
    assert PACKAGED.stat().st_size <= 8e6
    stages = load_trained_run(PACKAGED, choose_device(InferenceOptions(device="cpu")))
    assert set(stages) == {"detection", "segmentation"}


@pytest.mark.parametrize(
    "told",
    ["CC BY 4.0", "Naylor", "clinical", "annotated points in them", "held-out patients",
     "make.sh", "| MO", "| DSB"],
)  # fmt: skip
def test_its_card_tells(told):
    assert told in CARD


@pytest.fixture(scope="module")
def tile():
    """A made-up tile of the sample, of other colours and shapes than any it was trained on."""
    return make_tile(np.random.default_rng(3), 256)


def test_predict_takes_it_and_says_so(tmp_path, run_script, tile):
    image, truth = tile
    write_png(tmp_path / "in" / "a.png", image)
    given = ["--images", "in", "--device", "cpu"]
    said = run_script("code_seg/predict.py", *given, "--out", "out").stdout
    assert "comes with this project" in said and "data/models/tnbc.md" in said
    found = read_label(tmp_path / "out" / "a_instances.tif", truth.shape)
    assert score(truth, found, 11)["aji"] > 0.5
    said = run_script("code_detection/predict.py", *given, "--out", "points").stdout
    assert "comes with this project" in said
    points = np.loadtxt(tmp_path / "points" / "a_points.csv", delimiter=",", skiprows=1, ndmin=2)
    counts = count(points[:, :2].astype(int), points_from_instances(truth), 11)
    assert counts.scores()["f1"] > 0.7
