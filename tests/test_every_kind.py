"""Every kind of file through every entry point: import, check, prepare and predict.

Each gives the same pixels, ids and frame, or the same one line. What the kinds are stands in
kinds.py; that the reader reads them rightly is tested beside it.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from kinds import (
    DEEP,
    GREY,
    IMAGE,
    KINDS,
    LABELS,
    NO_FILES,
    NO_IMAGES,
    REFUSED,
    WRONG_LABELS,
    write_kind,
    write_label,
    write_refused,
)

from code_common.errors import InputError
from code_common.files.data_set import find_images
from code_common.files.images import read_image, read_instances, read_label
from code_common.files.reading import read_json, read_points
from code_common.files.run_folder import colours_path, points_path
from code_common.files.writing import write_json, write_png, write_table
from code_common.inference.trained_run import TrainedStage
from code_common.learning.colours import ColourStatistics
from code_detection.options import Options as DetectionOptions
from code_detection.prepare_data import prepare
from code_seg.options import SegPredictOptions
from code_seg.predict import predict
from data.findings import FAIL, check_image
from data.import_labels import main as import_labels
from data.import_labels import parse_arguments

SUFFIX = {"tiff": "tif", "png": "PNG", "jpeg": "Jpg", "bmp": "bmp"}


class Nothing(torch.nn.Module):
    """A 'network' that sees no nucleus."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.stack([x[:, 0] * 0 + 9 - 18 * k for k in range(2)][-self.channels :], 1)


@pytest.fixture
def blind(monkeypatch):
    """Prediction with a run that sees no nucleus: an overlay is the image as it was read."""
    detector = {"r1": 6, "threshold": 0.5, "min_area": 5, "max_area": 400}
    segmenter = {"min_area": 10, "instances": "points", "nucleus_radius": 0.0}
    stages = {
        "detection": TrainedStage(Nothing(1), detector, key="d"),
        "segmentation": TrainedStage(Nothing(2), segmenter, key="s"),
    }
    monkeypatch.setattr("code_seg.predict.load_trained_run", lambda *_: dict(stages))
    monkeypatch.setattr("os.fsync", lambda _: None)  # a thousand small files


def predicted(out, *images):
    """Predict on files, as predict.py does."""
    options = SegPredictOptions(
        model=out, images=images, out=out, tile=64, overlap=16, device="cpu", precision="fp32"
    )
    return predict(options.resolved())


def imported(kind, data, source, capsys):
    """Import as import_labels.py does; the error, and what is printed."""
    arguments = parse_arguments([kind, "--data-dir", str(data), "--source", str(source)])
    error = ""
    try:
        import_labels(arguments)
    except InputError as caught:
        error = str(caught)
    return error, capsys.readouterr().out


def prepared(data, out, names):
    """Prepare stage 1 with these training images and all their points."""
    write_json(data / "train_val_test.json", {"train": names, "val": [], "test": []})
    options = DetectionOptions(
        dataset=data.name, data_root=data.parent, ratio=1, save_dir=out, device="cpu"
    )
    return prepare(options.resolved())


def corners(shape):
    """Points [N, 2] in three corners of an image, as far as it has so many that do not touch."""
    last = np.array(shape) - 1
    points = np.array([(0, 0), (0, last[1]), (last[0], 0)])
    return points[: 3 if last.min() > 1 else 1 + (last[1] > 1)]


@pytest.fixture(scope="module")
def every_image(tmp_path_factory):
    """A data set of all kinds of images; name of an image -> its kind, its pixels and its note."""
    data, every = tmp_path_factory.mktemp("every") / "kinds", {}
    (data / "images").mkdir(parents=True)
    for number, kind in enumerate(KINDS):
        name = f"{number:03}.{SUFFIX[kind.split()[0]]}"
        try:
            every[name] = (kind, *write_kind(kind, data / "images" / name))
        except pytest.skip.Exception:
            pass  # imagecodecs is needed to write it
    for name, (_, pixels, _) in every.items():
        table = data.parent / "points" / f"{Path(name).stem}.csv"
        write_table(table, ["row", "col"], corners(pixels.shape[:2]).tolist())
    return data, every


def test_every_kind_of_image_through_every_entry_point(
    every_image, tmp_path, capsys, blind, open_slide
):
    data, every = every_image
    assert len(every) >= 60
    error, _ = imported("points", data, data.parent / "points", capsys)
    assert error == ""
    message = prepared(data, tmp_path / "run", list(every))
    points = {name: corners(pixels.shape[:2]) for name, (_, pixels, _) in every.items()}
    assert message.startswith(f"{sum(map(len, points.values()))} of ")
    some = list(every)[::6]  # the whole script; what it opens is checked for all of them
    predicted(tmp_path / "out", *(data / "images" / name for name in some))
    told = capsys.readouterr().out
    colours = ColourStatistics()
    files = {
        files.image.name: files
        for files in find_images(data / "images", None, data / "labels_point")
    }
    for name, (kind, pixels, note) in every.items():
        found, stem = files[name], Path(name).stem
        label = read_label(found.points, pixels.shape[:2])
        assert np.array_equal(np.argwhere(label), points[name]), kind
        check = check_image(found)
        assert not check.findings and check.shape == pixels.shape[:2], kind
        assert check.pixels == hashlib.sha256(pixels.astype(np.uint8).tobytes()).hexdigest(), kind
        assert note in " ".join(check.notes), kind
        slide = open_slide(found.image, None, None)
        assert slide.notes[: len(check.notes)] == tuple(check.notes), kind
        assert np.array_equal(slide.read(0, 0, *slide.shape), pixels), kind
        drawn = read_points(points_path(tmp_path / "run", stem), pixels.shape[:2])
        assert sorted(drawn.tolist()) == sorted(points[name].tolist()), kind
        if name in some:
            overlay = read_image(tmp_path / "out" / f"{stem}_overlay.png")
            assert np.array_equal(overlay, pixels) and note in told, kind
        colours.add(pixels.astype(np.uint8))
    assert read_json(colours_path(tmp_path / "run")) == colours.result()
    assert (tmp_path / "out" / "summary.csv").is_file()


def test_a_large_image_is_read_as_a_small_one(every_image, monkeypatch, open_slide):
    """In parts, and by the same rules: other decoders know fewer kinds."""
    monkeypatch.setattr("code_common.inference.slides.LARGE", 0)
    data, every = every_image
    for name, (kind, pixels, note) in every.items():
        slide = open_slide(data / "images" / name, None, None)
        assert slide.large == kind.startswith("tiff")
        assert np.array_equal(slide.read(0, 0, *slide.shape), pixels), kind
        assert note in " ".join(slide.notes), kind


@pytest.mark.parametrize("kind", REFUSED)
def test_a_large_tiff_is_refused_as_a_small_one(tmp_path, monkeypatch, kind, open_slide):
    monkeypatch.setattr("code_common.inference.slides.LARGE", 0)
    message = write_refused(kind, tmp_path / "a.tif")
    with pytest.raises(InputError) as caught:
        open_slide(tmp_path / "a.tif", None, None)
    assert re.search(message, one_line(caught.value, tmp_path / "a.tif"))


@pytest.mark.parametrize("array", [DEEP, np.dstack([IMAGE, GREY])], ids=["16 bits", "alpha"])
def test_a_large_tiff_is_scaled_as_a_small_one(tmp_path, monkeypatch, array, open_slide):
    path, even = tmp_path / "a.tif", array[:36, :50]  # of which every pixel becomes part of one
    tifffile.imwrite(path, even, photometric="rgb", tile=(16, 16))
    small = open_slide(path, 1, 0.5)
    monkeypatch.setattr("code_common.inference.slides.LARGE", 0)
    large = open_slide(path, 1, 0.5)
    assert large.large and not small.large
    assert (large.shape, large.scale, large.mpp) == (small.shape, small.scale, small.mpp)
    assert np.array_equal(large.read(0, 0, *large.shape), small.read(0, 0, *small.shape))
    assert np.array_equal(large.read(3, 5, 4, 6), small.read(3, 5, 4, 6))
    assert large.thumbnail().shape == (*(-(-n // 32) for n in large.shape), 3)


def one_line(error, path):
    """What an error says of a file, in one line that names it."""
    assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    return str(error).removeprefix(f"{path}: ")


def write_wrong(kind, path):
    """Write what is no image that is read; returns what the line says."""
    if kind in REFUSED:
        return write_refused(kind, path)
    if kind in NO_FILES:
        make, message = NO_FILES[kind]
        make(path)
        return message
    content, message = NO_IMAGES[kind]
    path.write_bytes(content)
    return message


@pytest.mark.parametrize("suffix", ["png", "TIF"])
@pytest.mark.parametrize("kind", [*REFUSED, *NO_IMAGES, *NO_FILES])
def test_what_is_no_image_is_the_same_line_everywhere(tmp_path, capsys, blind, kind, suffix):
    data = tmp_path / "kinds"
    path = data / "images" / f"a.{suffix}"
    path.parent.mkdir(parents=True)
    message = write_wrong(kind, path)
    write_table(tmp_path / "points" / "a.csv", ["row", "col"], [[5, 5]])
    with pytest.raises(InputError) as in_prepare:
        prepared(data, tmp_path / "run", [path.name])
    line = one_line(in_prepare.value, path)
    assert re.search(message, line)
    with pytest.raises(InputError) as in_predict:
        predicted(tmp_path / "out", path.parent)
    assert one_line(in_predict.value, path) == line
    (finding,) = check_image(find_images(path.parent, None)[0]).findings
    assert (finding.level, finding.file, finding.message) == (FAIL, str(path), line)
    error, _ = imported("points", data, tmp_path / "points", capsys)
    assert error == "" or one_line(error, path) == line  # it needs no more than the header


@pytest.fixture(scope="module")
def every_label(tmp_path_factory):
    """A data set whose images have labels of all kinds; name -> kind and ids."""
    data, every = tmp_path_factory.mktemp("labels") / "kinds", {}
    (data / "labels_instance").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, kind in enumerate(LABELS):
        make, ids = LABELS[kind]
        ending = ("", "_label", "_MASK", "_cp_masks")[number % 4]
        suffix = SUFFIX[kind.split()[0]]
        try:
            write_label(make, data / "labels_instance" / f"{number:03}{ending}.{suffix}")
        except pytest.skip.Exception:
            continue
        write_png(data / "images" / f"{number:03}.png", rng.integers(0, 256, (37, 50, 3), np.uint8))
        every[f"{number:03}"] = kind, ids
    return data, every


def test_every_kind_of_label_through_every_entry_point(every_label, tmp_path, capsys):
    data, every = every_label
    other = tmp_path / "kinds"
    other.mkdir()
    (other / "images").symlink_to(data / "images")
    error, told = imported("masks", other, data / "labels_instance", capsys)
    assert error == ""
    prepared(data, tmp_path / "run", [f"{name}.png" for name in every])
    files = {
        files.name: files for files in find_images(data / "images", None, data / "labels_instance")
    }
    for name, (kind, ids) in every.items():
        count = len(np.unique(ids)) - 1
        assert f"{name}: {count} nuclei from " in told, kind
        written = read_instances(other / "labels_instance" / f"{name}_label.tif", ids.shape)
        assert np.array_equal(written, ids), kind
        check = check_image(files[name])
        assert all(finding.level != FAIL for finding in check.findings), kind
        areas = np.unique(ids[ids > 0], return_counts=True)[1]
        assert np.array_equal(check.areas, areas), kind
        drawn = read_points(points_path(tmp_path / "run", name), ids.shape)
        assert len(drawn) == count and (ids[tuple(drawn.T)] > 0).all(), kind


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_what_holds_no_ids_is_the_same_line_everywhere(tmp_path, capsys, kind):
    make, message = WRONG_LABELS[kind]
    data = tmp_path / "kinds"
    path = data / "labels_instance" / "a_mask.tif"
    path.parent.mkdir(parents=True)
    write_label(make, path)
    write_png(data / "images" / "a.png", np.zeros((37, 50, 3), np.uint8))
    with pytest.raises(InputError) as in_prepare:
        prepared(data, tmp_path / "run", ["a.png"])
    line = one_line(in_prepare.value, path)
    assert re.search(message, line)
    (files,) = find_images(data / "images", None, data / "labels_instance")
    (finding,) = check_image(files).findings
    assert (finding.level, finding.file, finding.message) == (FAIL, str(path), line)
    other = tmp_path / "other"
    other.mkdir()
    (other / "images").symlink_to(data / "images")
    error, _ = imported("masks", other, path.parent, capsys)
    if kind in ("pages", "images"):  # the import may be told which one to take
        line = line.replace("images", "maps").replace("one label image", "one, or --plane N")
    assert one_line(error, path) == line
