"""The page of predict.py --annotate: which images and places are in it, and which are named."""

import base64
import json
import os
import re

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from stand_ins import Darkness, disks, pale

from code_common.errors import InputError
from code_common.files.images import read_image
from code_common.files.writing import write_png
from code_common.inference.trained_run import TrainedStage
from code_detection import annotate_page
from code_detection import predict as script
from code_detection.annotate_page import Found, doubtful_places, image_block
from code_detection.options import DetectionPredictOptions
from code_detection.predict import predict

NEARLY_DARK = (143, 143, 143)  # probability 0.4, where the threshold is 0.5


DETECTOR = {"r1": 6, "threshold": 0.5, "min_area": 5, "max_area": 400}


@pytest.fixture
def trained(monkeypatch):
    """A detector of dark disks, which stands for that of any run."""
    stages = {"detection": TrainedStage(Darkness(1), DETECTOR, key="d")}
    monkeypatch.setattr(script, "load_trained_run", lambda *_: stages)


def given(folder, **changes):
    """A prediction of the images in folder/in with --annotate."""
    values = {"model": folder, "images": (folder / "in",), "out": folder / "out"}
    values |= {"tile": 64, "overlap": 24, "device": "cpu", "precision": "fp32", "annotate": True}
    return DetectionPredictOptions(**values | changes).resolved()


def write_tile(path, count=20, candidates=()):
    """An image of dark disks and of nearly dark ones; returns the middles of the dark ones."""
    image, centres = disks((200, 250), count) if count else (pale((200, 250)), None)
    for row, col in candidates:
        cv2.circle(image, (col, row), 6, NEARLY_DARK, -1)
    write_png(path, image)
    return centres


def in_page(out):
    """What the page holds of each image, by its name."""
    text = (out / "annotate.html").read_text()
    blocks = re.findall(r'<script type="application/json" class="image">(.*)</script>', text)
    return {content["file"]: content for content in map(json.loads, blocks)}


def shown(content):
    """The image [H, W, 3] uint8 that the page shows."""
    data = np.frombuffer(base64.b64decode(content["jpeg"]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def places(points):
    """Row, column -> x, y as in the page."""
    return {(col + 0.5, row + 0.5) for row, col in np.asarray(points).tolist()}


def test_the_page_holds_images_detections_and_candidates(tmp_path, trained):
    centres = write_tile(tmp_path / "in" / "a.png", 20)
    write_tile(tmp_path / "in" / "b.png", 0, candidates=[(60, 40)])
    message = predict(given(tmp_path))
    page = tmp_path / "out" / "annotate.html"
    assert message == f"20 nuclei in 2 images; see {page.parent}; correct them in {page}"
    a, b = (in_page(tmp_path / "out")[name] for name in ("a.png", "b.png"))
    assert set(map(tuple, a["points"])) == places(centres) and b["points"] == []
    assert len(a["doubts"]) == 2 and b["doubts"] == [[40.5, 60.5]]
    assert np.abs(shown(b).astype(int) - read_image(tmp_path / "in" / "b.png")).mean() < 5


def test_a_second_call_makes_the_page_of_what_is_done(tmp_path, trained, monkeypatch, capsys):
    """Also where the first call made none; it is then without candidates, which is told."""
    write_tile(tmp_path / "in" / "a.png")
    predict(given(tmp_path, annotate=False))
    assert not (tmp_path / "out" / "annotate.html").exists()
    write_tile(tmp_path / "in" / "b.png")
    predict(given(tmp_path))
    assert "annotate.html: 1 images were done without --annotate" in capsys.readouterr().out
    before = (tmp_path / "out" / "annotate.html").read_bytes()
    (tmp_path / "out" / "annotate.html").unlink()
    monkeypatch.setattr(script, "detect_slide", None)
    predict(given(tmp_path))
    assert (tmp_path / "out" / "annotate.html").read_bytes() == before


def test_candidates_are_those_of_the_last_model(tmp_path, trained):
    candidates = tmp_path / "out" / "a_candidates.csv"
    write_tile(tmp_path / "in" / "a.png")
    predict(given(tmp_path))
    assert candidates.is_file()
    predict(given(tmp_path, annotate=False, overlap=16))
    assert not candidates.exists()


def test_images_that_are_not_in_the_page_are_named(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(annotate_page, "LARGEST", 300)
    write_tile(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no image")
    write_png(tmp_path / "in" / "c.png", disks((60, 320), 3)[0])
    with pytest.raises(InputError) as error:
        predict(given(tmp_path))
    broken, large = str(error.value).split("\nerror: ")
    assert "b.png" in broken
    assert "c.png: too large to be corrected in a page, over 300 x 300 pixels" in large
    assert list(in_page(tmp_path / "out")) == ["a.png"]
    assert (tmp_path / "out" / "c_points.csv").is_file()


def test_a_full_page_says_which_images_are_missing(tmp_path, trained, monkeypatch):
    for name in "abc":
        write_tile(tmp_path / "in" / f"{name}.png")
    predict(given(tmp_path))
    size = (tmp_path / "out" / "annotate.html").stat().st_size
    monkeypatch.setattr(annotate_page, "MOST_BYTES", size - 1)
    with pytest.raises(InputError, match="1 images are not in it, from c.png on"):
        predict(given(tmp_path))
    assert list(in_page(tmp_path / "out")) == ["a.png", "b.png"]


def test_a_page_with_nothing_to_show_leaves_the_earlier_one(tmp_path, trained, monkeypatch):
    write_tile(tmp_path / "in" / "a.png")
    predict(given(tmp_path))
    before = (tmp_path / "out" / "annotate.html").read_bytes()
    monkeypatch.setattr(annotate_page, "LARGEST", 100)
    with pytest.raises(InputError, match="a.png: too large"):
        predict(given(tmp_path))
    assert (tmp_path / "out" / "annotate.html").read_bytes() == before


def test_scaled_images_are_shown_and_marked_in_pixels_of_the_file(tmp_path, trained):
    image, centres = disks((200, 250), 20, radius=(9, 12))
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", image)
    predict(given(tmp_path, mpp=0.5, file_mpp=0.25))
    content = in_page(tmp_path / "out")["a.tif"]
    assert shown(content).shape == image.shape
    found = np.array(content["points"])[:, ::-1] - 0.5
    distances = np.abs(found[:, None] - centres[None]).max(2)
    assert len(found) == 20 and distances.min(0).max() <= 1.5


@pytest.mark.parametrize("kind", ["16 bit", "turned", "grey"])
def test_the_page_shows_an_image_as_it_was_read(tmp_path, trained, kind):
    image, centres = disks((200, 250), 12)
    path = tmp_path / "in" / ("a.jpg" if kind == "turned" else "a.tif")
    path.parent.mkdir()
    if kind == "16 bit":
        tifffile.imwrite(path, image.astype(np.uint16) * 257)
    elif kind == "grey":
        tifffile.imwrite(path, image[..., 1])
    else:
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(image).save(path, quality=95, exif=exif)
    predict(given(tmp_path))
    content = in_page(tmp_path / "out")[path.name]
    read = read_image(path)
    assert np.abs(shown(content).astype(int) - read).mean() < 5
    assert len(content["points"]) == 12
    for x, y in content["points"]:
        assert read[int(y), int(x), 1] < 100


def test_names_cannot_break_the_page(tmp_path):
    file = os.fsdecode(b'\xe4"<script>\n, <!--.png')
    points = np.array([[5, 7], [20, 10]])
    block = image_block(file, np.zeros((10, 12, 3), np.uint8), points, points[:0])
    head, _, text = block.decode().partition(">")
    content = json.loads(text.removesuffix("</script>\n"))
    assert content["file"] == '\\xe4"<script>\n, <!--.png'
    assert "<" not in text.removesuffix("</script>\n") and text.count("\n") == 1
    assert content["points"] == [[7.5, 5.5], [10.5, 9.5]]  # within the image, as it is rounded


def test_the_least_sure_tenth_of_all_images_is_doubtful():
    def found(probs, candidate_probs):
        """Row k holds the k-th place."""
        rows = [
            np.stack([np.arange(len(p)), np.zeros(len(p))], 1) for p in (probs, candidate_probs)
        ]
        return Found(rows[0], np.array(probs), rows[1] + 0.5, np.array(candidate_probs))

    sure = found([1.0] * 15, [0.1, 0.3])
    unsure = found([0.9, 0.6, 0.6, 0.8, 0.9], [])
    places = doubtful_places({"sure": sure, "unsure": unsure})
    assert places["unsure"].tolist() == [[1, 0], [2, 0]]
    assert places["sure"].tolist() == [[0.5, 0.5], [1.5, 0.5]]
    none = doubtful_places({"a": found([], [0.3])})
    assert none["a"].shape == (0, 2)
    one = doubtful_places({"a": found([0.9], [0.2, 0.4, 0.3])})
    assert one["a"].tolist() == [[0, 0], [1.5, 0.5]]
