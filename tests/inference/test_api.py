"""Nuclei of arrays: the same numbers as the files of predict.py."""

import numpy as np
import pytest
from conftest import blob_image

from code_common.errors import InputError
from code_common.files.images import read_label
from code_common.files.reading import read_table
from code_common.files.writing import write_png, write_table
from code_common.options import PredictInference
from code_detection.options import DetectionPredictOptions
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
    return load_model(experiment.root / "repeat_1", PredictInference(**INFERENCE))


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
    predict_points(DetectionPredictOptions(**given, **INFERENCE).resolved())
    table = read_table(tmp_path / "out" / "a_points.csv", "row", "col", "prob")
    points, probs = detect(image, model)
    assert points.tolist() == np.stack([table["row"], table["col"]], 1).tolist()
    assert np.allclose(probs, table["prob"], atol=1e-4)


@pytest.mark.parametrize("only_points", [False, True])
def test_nuclei_of_points_are_those_of_predict(tmp_path, image, model, only_points):
    points = np.argwhere(image[..., 0] < 150)[::200]
    write_png(tmp_path / "in" / "a.png", image)
    write_table(tmp_path / "a.csv", ("row", "col"), points.tolist())
    given = {"model": model.path, "images": (tmp_path / "in",), "out": tmp_path / "out"}
    given |= {"points": tmp_path / "a.csv", "only_points": only_points}
    predict(SegPredictOptions(**given, **INFERENCE).resolved())
    expected = read_label(tmp_path / "out" / "a_instances.tif", image.shape[:2])
    assert np.array_equal(segment(image, model, points, only_points=only_points), expected)


def test_a_point_that_stands_twice_counts_once(image, model):
    points = np.argwhere(image[..., 0] < 150)[::200]
    one, two = (segment(image, model, p, only_points=True) for p in (points, points.repeat(2, 0)))
    assert np.array_equal(one, two)


def test_what_makes_no_sense_together_is_refused(image, model):
    with pytest.raises(InputError, match="expected a model of load_model, not 'mine.pt'"):
        segment(np.zeros((90, 100, 3), np.uint8), "mine.pt")
    with pytest.raises(InputError, match="only_points: give points, too"):
        segment(image, model, only_points=True)
    with pytest.raises(InputError, match="instances must be one of auto, components"):
        segment(image, model, instances="xx")


def test_no_points_leave_components_whole(image, model):
    alone = segment(image, model, np.zeros((0, 2)), "points")
    assert np.array_equal(alone, segment(image, model, instances="components"))


def test_what_is_no_image_is_refused(image, model):
    for wrong in (image[..., 0], image / 255, image.tolist(), image[..., :2]):
        with pytest.raises(InputError, match="expected an image uint8"):
            segment(wrong, model)
    for wrong, said in (
        ((image > 128).astype(np.uint8), "not of 0 and 1"),
        (np.ma.masked_less(image, 9), "without a mask"),
    ):
        with pytest.raises(InputError, match=said):
            segment(wrong, model)
    with pytest.raises(InputError, match="expected points without a mask"):
        segment(image, model, np.ma.masked_less([[5, 5], [20, 20]], 9))
    with pytest.raises(InputError, match="a point outside of the image of 90 rows, 100 columns"):
        segment(image, model, [[90, 5]])


POINTS = "expected points \\[N, 2\\] \\(row, column\\), not "


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.array([[5.0, 6.0, 0.9], [7.0, 8.0, 0.8]]), "float64 \\[2, 3\\]"),
        (np.array([[5, 7, 9], [6, 8, 10]]), "int64 \\[2, 3\\]"),
        (np.nonzero(np.eye(9)), "int64 \\[2, 9\\]"),
        ([1, 2, 3, 4], "int64 \\[4\\]"),
        (np.zeros((1, 3, 2)), "float64 \\[1, 3, 2\\]"),
        (np.zeros((0, 3)), "float64 \\[0, 3\\]"),
        ([["a", "b"]], "<U1 \\[1, 2\\]"),
        ([[1, 2], [3]], "a ragged list"),
        ((np.zeros((4, 2)), np.zeros(4)), "a ragged list"),  # what `detect` returns
        ({"row": [1]}, "object \\[\\]"),
        (7, "int64 \\[\\]"),
    ],
)
def test_points_of_another_form_are_refused(image, model, points, message):
    with pytest.raises(InputError, match=POINTS + message):
        segment(image, model, points)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e300, -0.2, 90.0])
def test_a_point_that_lies_nowhere_is_refused(image, model, place):
    with pytest.raises(InputError, match="a point outside of the image"):
        segment(image, model, [[place, 5.0]])


def test_no_points_may_be_an_empty_list(image, model):
    alone = segment(image, model, [], "points")
    assert np.array_equal(alone, segment(image, model, instances="components"))


@pytest.mark.parametrize("call", [segment, detect])
def test_an_image_without_a_pixel_is_refused(image, model, call):
    for empty in (image[:0], image[:, :0]):
        with pytest.raises(InputError, match="expected an image uint8"):
            call(empty, model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "x"}, "--precision must be one of auto, fp32, bf16, not x"),
        ({"views": 3}, "--views must be one of 1, 2, 4, 8, not 3"),
        ({"tile": 0}, "--tile must be from 32 to 2048, not 0"),
        ({"tile": 64, "overlap": 64}, "--overlap must be from 0 to 48, not 64"),
        ({"device": "gpu"}, "--device must be auto, cpu, cuda"),
        ({"tile": "64"}, "--tile must be int, not '64'"),
        ({"tile": 64.5}, "--tile must be int, not 64.5"),
        ({"views": True}, "--views must be int, not True"),
        ({"gpus": [0]}, "--gpus must be tuple, not \\[0\\]"),
    ],
)
def test_options_that_predict_would_refuse_are_refused(model, given, message):
    with pytest.raises(InputError, match=message):
        load_model(model.path, PredictInference(**given))


@pytest.mark.parametrize(
    ("path", "inference", "message"),
    [
        (None, None, "expected the path of a model, not None"),
        (3, None, "expected the path of a model, not 3"),
        ("m.pt", "cpu", "inference must be PredictInference\\(...\\), not 'cpu'"),
        ("m.pt", {"views": 1}, "inference must be PredictInference"),
    ],
)
def test_what_is_no_model_or_inference_is_refused(path, inference, message):
    with pytest.raises(InputError, match=message):
        load_model(path, inference)
