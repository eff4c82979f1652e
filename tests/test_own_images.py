"""test.py on images of one's own: what it takes, what it leaves out, and which scores stay."""

import shutil

import numpy as np
import pytest
from conftest import both_stages, link_run, run_here
from PIL import Image

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import STAGES, metrics_path, results_folder
from code_common.files.writing import write_points

PACKAGES = dict(zip(STAGES, ("code_detection", "code_seg"), strict=True))


@pytest.fixture
def own(experiment, tmp_path, capsys):
    """A function that tests a stage of a finished run on the images of `own/`: what it told."""
    link_run(experiment, tmp_path)
    tiny, images, labels = (tmp_path / name for name in ("data/tiny", "own", "own_labels"))
    images.mkdir()
    labels.mkdir()
    for name in ("test0", "test1"):
        shutil.copy(tiny / "images" / f"{name}.png", images)
        shutil.copy(tiny / "labels_instance" / f"{name}_label.tif", labels)

    def test(stage, *more):
        given = both_stages(tmp_path)[STAGES.index(stage)]
        capsys.readouterr()
        told = run_here(PACKAGES[stage], "test", *given, "--img-dir", images, *more)
        return f"{capsys.readouterr().out}{told}"

    return test


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_without_labels_of_these_images_is_refused(own, tmp_path, stage):
    """A typing error would give no scores, without a word."""
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "own_labels/test0_label.tif", tmp_path / "other/x_label.tif")
    for folder in ("typo", "other"):
        with pytest.raises(InputError, match=f"{folder}: no labels of the images in .*/own;"):
            own(stage, "--label-dir", tmp_path / folder)


@pytest.mark.parametrize("stage", STAGES)
def test_files_that_are_no_images_are_named(own, tmp_path, stage):
    images = tmp_path / "own"
    shutil.copy(images / "test0.png", images / "test0_mask.png")
    Image.new("RGB", (9, 9)).save(images / "w.webp")
    told = own(stage)
    assert "taken for masks of the images beside them: 1 (test0_mask.png)" in told
    assert "only PNG, TIFF, BMP and JPEG are read, not 1 (w.webp)" in told
    assert "2 images, no" in told


@pytest.mark.parametrize("stage", STAGES)
def test_the_number_of_scored_images_is_told(own, tmp_path, stage):
    labels = tmp_path / "own_labels"
    (labels / "test1_label.tif").unlink()
    assert "2 images, of which 1 have " in own(stage, "--label-dir", labels)


def test_a_method_that_scores_fewer_images_says_so(own, tmp_path):
    """Without detections there are connected components alone."""
    write_points(tmp_path / "points" / "test0_points.csv", np.array([[10, 10], [30, 30]]))
    more = ("--label-dir", tmp_path / "own_labels", "--points-dir", tmp_path / "points")
    told = own("segmentation", *more)
    assert "2 images; components: " in told and "; convex of 1: " in told


def test_instances_that_need_points_are_told_where_there_are_none(own, tmp_path):
    """The scores were those of components, under the name of convex."""
    told = own("segmentation", "--instances", "convex", "--label-dir", tmp_path / "own_labels")
    assert "no points, so connected components, not convex, of 2 of 2 images: 2 (test0" in told
    folder = tmp_path / "out/tiny/ratio_0.5/repeat_1/segmentation"
    metrics = read_json(metrics_path(results_folder(folder, own_images=True)))
    assert metrics["instances"] == "components" and set(metrics["mean"]) == {"components"}
    assert "no points" not in own("segmentation", "--instances", "components")


@pytest.mark.parametrize("stage", STAGES)
def test_a_broken_image_leaves_no_scores_of_other_results(own, tmp_path, stage):
    labels = ("--label-dir", tmp_path / "own_labels")
    own(stage, *labels)
    folder = tmp_path / "out/tiny/ratio_0.5/repeat_1" / stage
    scores = metrics_path(results_folder(folder, own_images=True))
    assert read_json(scores)
    (tmp_path / "own" / "test1.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"test1\.png"):
        own(stage, *labels, "--tile", 32)
    assert not scores.exists()


@pytest.mark.parametrize("stage", STAGES)
def test_results_of_other_images_are_named(own, tmp_path, stage):
    own(stage)
    (tmp_path / "own" / "test1.png").unlink()
    assert "results of other images of earlier calls lie in" in own(stage)
