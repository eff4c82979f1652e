"""Nuclei of arrays: the same numbers as the files of predict.py."""

import numpy as np
import pytest
from conftest import blob_image

from code_common.errors import InputError
from code_common.files.images import read_label
from code_common.files.reading import read_table
from code_common.files.writing import write_png
from code_common.options import InferenceOptions, PredictOptions
from code_detection.predict import predict as predict_points
from code_seg.api import detect, load_model, segment
from code_seg.options import SegPredictOptions
from code_seg.predict import predict

INFERENCE = {"tile": 64, "overlap": 16, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def image():
    return blob_image(np.random.default_rng(5), (90, 100), 12)[0]


@pytest.fixture
def model(experiment):
    return load_model(experiment.root / "repeat_1", InferenceOptions(**INFERENCE))


@pytest.mark.parametrize("method", ["auto", "components", "points", "convex"])
def test_nuclei_are_those_of_predict(tmp_path, image, model, method):
    write_png(tmp_path / "in" / "a.png", image)
    given = {"model": model.path, "images": (tmp_path / "in",), "out": tmp_path / "out"}
    predict(SegPredictOptions(**given, **INFERENCE, instances=method).resolved())
    expected = read_label(tmp_path / "out" / "a_instances.tif", image.shape[:2])
    assert np.array_equal(segment(image, model, instances=method), expected)


def test_detections_are_those_of_predict(tmp_path, image, model):
    write_png(tmp_path / "in" / "a.png", image)
    given = {"model": model.path, "images": (tmp_path / "in",), "out": tmp_path / "out"}
    predict_points(PredictOptions(**given, **INFERENCE).resolved())
    table = read_table(tmp_path / "out" / "a_points.csv", "row", "col", "prob")
    points, probs = detect(image, model)
    assert points.tolist() == np.stack([table["row"], table["col"]], 1).tolist()
    assert np.allclose(probs, table["prob"], atol=1e-4)


def test_points_of_ones_own_divide_the_nuclei(image, model):
    """The detections, given as points, change nothing; no points leave components whole."""
    points, _ = detect(image, model)
    whole = segment(image, model, instances="points")
    assert np.array_equal(segment(image, model, points, "points"), whole)
    alone = segment(image, model, np.zeros((0, 2)), "points")
    assert np.array_equal(alone, segment(image, model, instances="components"))


def test_what_is_no_image_is_refused(image, model):
    for wrong in (image[..., 0], image / 255, image.tolist(), image[..., :2]):
        with pytest.raises(InputError, match="expected an image uint8"):
            segment(wrong, model)
    with pytest.raises(InputError, match="a point outside of the image of 90 rows, 100 columns"):
        segment(image, model, [[90, 5]])
