"""Predictions of any origin are scored against true masks."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from conftest import make_dataset

from code_common.arrays import points_from_instances
from code_common.detection_scores import add, count
from code_common.errors import InputError
from code_common.files.data_set import find_images
from code_common.files.images import image_shape, read_instances, read_label
from code_common.files.writing import write_instances, write_points
from code_seg.metrics import score
from tools.score import main, parse_arguments


@pytest.fixture
def labelled(tmp_path):
    """A tiny data set, and a folder of predictions: its true maps without their first nucleus."""
    data, predicted = make_dataset(tmp_path / "tiny"), tmp_path / "predicted"
    for files in find_images(data / "images", None, data / "labels_instance"):
        truth = read_instances(files.instances, image_shape(files.image))
        found = np.where(truth == 1, 0, truth)
        write_instances(predicted / f"{files.name}_instances.tif", found)
        write_points(predicted / f"{files.name}_points.csv", points_from_instances(found))
    return data, predicted


def run_score(data, predicted, *more):
    folders = ["--images", data / "images", "--labels", data / "labels_instance"]
    words = [*folders, "--predicted", predicted, "--out", predicted / "scores", *more]
    main(parse_arguments([str(word) for word in words]))
    return json.loads((predicted / "scores" / "metrics.json").read_text())


def test_scores_are_those_of_the_metrics(labelled):
    data, predicted = labelled
    found = run_score(data, predicted)
    truth = read_instances(data / "labels_instance" / "test0_label.tif", (64, 64))
    expected = score(truth, np.where(truth == 1, 0, truth), 11)
    of_image = found["images"]["test0"]
    assert {name: of_image[name] for name in expected} == expected
    assert of_image["detection_precision"] == 1 and of_image["detection_recall"] == pytest.approx(
        1 - 1 / truth.max()
    )
    images = found["images"].values()
    assert found["mean"]["aji"] == pytest.approx(np.mean([image["aji"] for image in images]))


def test_intervals_are_drawn_over_patients(labelled):
    assert run_score(*labelled, "--patient", "^[a-z]+")["patients"] == 3
    assert run_score(*labelled)["patients"] == 4  # no name holds the default pattern


def test_names_in_which_the_pattern_finds_no_patient_are_told(labelled, capsys):
    for pattern, alone in (("^(t).*1", 3), ("^Q", 4), ("^[a-z]+", 0)):
        run_score(*labelled, "--patient", pattern)
        told = f"--patient {pattern} finds none in {alone} of 4 names" if alone else "scored; see"
        assert told in capsys.readouterr().out
    run_score(*labelled)  # the default is of TCGA
    assert "--patient" not in capsys.readouterr().out


def test_points_alone_are_scored(labelled):
    data, predicted = labelled
    for path in predicted.glob("*.tif"):
        path.unlink()
    found = run_score(data, predicted)
    assert found["mean"] == {} and set(found["pooled"]) == {
        f"detection_{name}"
        for name in ("precision", "recall", "f1", "mean_distance", "std_distance")
    }


def test_what_has_no_prediction_is_counted(labelled, capsys):
    data, predicted = labelled
    for path in predicted.glob("train0*"):
        path.unlink()
    run_score(data, predicted)
    told = capsys.readouterr().out
    assert "3 of 4 images scored" in told and "without a prediction: 1 (train0)" in told


def test_masks_beside_the_images_are_told(labelled, capsys):
    data, predicted = labelled
    before = run_score(data, predicted)
    shutil.copy(data / "images" / "val0.png", data / "images" / "val0_mask.png")
    capsys.readouterr()
    assert run_score(data, predicted) == before
    assert "taken for masks of the images beside them: 1 (val0_mask.png)" in capsys.readouterr().out


def test_the_map_of_a_large_image_is_scored(labelled):
    data, predicted = labelled
    before = run_score(data, predicted)
    path = predicted / "val0_instances.tif"
    path.rename(path.with_suffix(".ome.tif"))
    assert run_score(data, predicted) == before


def test_images_with_half_of_their_results_are_refused(labelled):
    data, predicted = labelled
    (predicted / "val0_points.csv").unlink()
    with pytest.raises(InputError, match=r"these have one alone: 1 \(val0\)"):
        run_score(data, predicted)


def test_a_folder_without_predictions_is_refused(labelled, tmp_path):
    data, _ = labelled
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to score"):
        run_score(data, tmp_path / "empty")


@pytest.mark.parametrize("name", ["labels", "predicted"])
def test_a_folder_that_is_not_there_is_named(labelled, tmp_path, name):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nowhere: no such folder$"):
        run_score(*labelled, f"--{name}", nowhere)


def test_detections_of_all_images_count_together(labelled):
    """Three images without a right detection, and one with all of them."""
    data, predicted = labelled
    counts, wrong = [], np.array([[0, 0]])
    for files in find_images(data / "images", None, data / "labels_instance"):
        truth = points_from_instances(read_instances(files.instances, image_shape(files.image)))
        found = truth if files.name == "test0" else wrong
        write_points(predicted / f"{files.name}_points.csv", found)
        counts.append(count(found, truth, 1))
    scored = run_score(data, predicted, "--r1", "1")
    expected = add(counts).scores()
    assert scored["pooled"] == {f"detection_{name}": value for name, value in expected.items()}
    low, high = scored["interval"]["detection_f1"]
    assert low <= expected["f1"] <= high and low < high
    assert not [name for name in scored["mean"] if name.startswith("detection")]


def test_a_broken_prediction_does_not_stop_the_others(labelled, capsys):
    data, predicted = labelled
    before = run_score(data, predicted)
    (predicted / "val0_points.csv").write_text("row,col\n5,900\n")
    (predicted / "train1_instances.tif").write_bytes(b"II")
    for path in predicted.glob("train0*"):
        path.unlink()
    with pytest.raises(InputError) as error:
        run_score(data, predicted)
    first, second = str(error.value).split("\nerror: ")
    assert "train1_instances.tif" in first and "val0_points.csv" in second
    scored = json.loads((predicted / "scores" / "metrics.json").read_text())
    assert scored["images"] == {"test0": before["images"]["test0"]} and scored["scored"] == 1
    assert scored["not_scored"] == {
        "without a true map": [],
        "without a prediction": ["train0"],
        "not readable": ["train1", "val0"],
    }
    assert "not readable: 2 (train1, val0)" in capsys.readouterr().out


WRONG_MAPS = {
    "a binary mask": (lambda ids: (ids > 0) * 255, "a binary mask"),
    "background 1": (lambda ids: ids + 1, "the background must be 0"),
    "background -1": (lambda ids: ids.astype(np.int32) - 1, "negative ids"),
    "classes": (lambda ids: (ids > 0) + (ids > 3) * 1, "a map of classes"),
    "probabilities": (lambda ids: np.arange(ids.size).reshape(ids.shape), "looks like a picture"),
}


@pytest.mark.parametrize("kind", WRONG_MAPS)
def test_what_is_no_instance_map_is_not_scored(labelled, kind):
    data, predicted = labelled
    before, (change, message) = run_score(data, predicted), WRONG_MAPS[kind]
    path = predicted / "val0_instances.tif"
    tifffile.imwrite(path, change(read_label(path, (64, 64))).astype(np.int32))
    with pytest.raises(InputError, match=message) as error:
        run_score(data, predicted)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    scored = json.loads((predicted / "scores" / "metrics.json").read_text())
    assert scored["images"] == {k: v for k, v in before["images"].items() if k != "val0"}
    assert scored["not_scored"]["not readable"] == ["val0"]


@pytest.mark.parametrize("first", [7, 2_000_000_000])
def test_ids_are_names(labelled, first):
    """Large ones, and gaps between them, change no score."""
    data, predicted = labelled
    before = run_score(data, predicted)
    for path in predicted.glob("*.tif"):
        ids = read_label(path, (64, 64)).astype(np.uint32)
        tifffile.imwrite(path, np.where(ids > 0, ids * 3 + first, 0))
    assert run_score(data, predicted) == before


def test_a_prediction_without_nuclei_or_with_one_is_scored(labelled):
    data, predicted = labelled
    for path, one in zip(sorted(predicted.glob("*.tif")), (0, 1, 0, 1), strict=True):
        ids = read_label(path, (64, 64))
        tifffile.imwrite(path, np.where(ids == ids.max(), one, 0).astype(np.uint8))
    assert run_score(data, predicted)["scored"] == 4


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
def test_a_prediction_of_one_nucleus_nearly_everywhere_is_scored(labelled, beside):
    data, predicted = labelled
    ids = np.full((64, 64), 9, np.int32)
    ids[:8] = 0
    ids[2:5, 2:5] = 3 * beside
    tifffile.imwrite(predicted / "val0_instances.tif", ids)
    found = run_score(data, predicted)
    assert found["scored"] == 4 and found["images"]["val0"]["aji"] < 0.1


@pytest.mark.parametrize("failure", ["a part", "all"])
def test_scores_of_an_earlier_call_do_not_stay_beside_a_failure(labelled, failure):
    data, predicted = labelled
    run_score(data, predicted)
    for path in predicted.glob("val0_points.csv" if failure == "a part" else "*.*"):
        path.unlink()
    with pytest.raises(InputError):
        run_score(data, predicted)
    assert not list((predicted / "scores").iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [("metrics.json", '{"mean": {"convex": {"aji": 1}}}'), ("metrics.json", "mine"),
     ("per_image.csv", "name,aji\n")],
)  # fmt: skip
def test_files_of_others_in_out_are_kept(labelled, name, text):
    """It deleted them, even where it then scored nothing."""
    data, predicted = labelled
    mine = predicted / "scores" / name
    mine.parent.mkdir()
    mine.write_text(text)
    with pytest.raises(InputError, match=f"{name}: .*it would be lost: give another --out"):
        run_score(data, predicted)
    assert mine.read_text() == text and list(mine.parent.iterdir()) == [mine]


def test_a_broken_pattern_is_one_line_before_the_work(run_script, labelled):
    data, predicted = labelled
    run_score(data, predicted)
    folders = ["--images", data / "images", "--labels", data / "labels_instance"]
    words = [*folders, "--predicted", predicted, "--out", predicted / "scores"]
    done = run_script("tools/score.py", *words, "--patient", "(", code=2)
    assert done.stderr.startswith("error: --patient must be a regular expression, not ( (missing )")
    assert done.stderr.count("\n") == 1 and list((predicted / "scores").iterdir())
