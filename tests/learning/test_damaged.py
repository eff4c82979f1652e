"""What is damaged between preparation and training is named; the training never learns from it."""

import cv2
import numpy as np
import pytest
from conftest import both_stages, make_dataset

from code_common.config import parse
from code_common.errors import InputError
from code_common.files.data_set import load_split
from code_common.files.run_folder import (
    LABELS,
    SELF_TRAINING_LABELS,
    background_path,
    colours_path,
    label_path,
    points_path,
)
from code_common.files.writing import write_json, write_png
from code_common.learning.colours import read_colours
from code_detection import dataset as detection
from code_detection.options import Options as Detection
from code_seg import dataset as segmentation
from code_seg.labels import to_colours
from code_seg.options import Options as Segmentation

SIZE = 64
NAME = "train0"


@pytest.fixture
def home(tmp_path):
    """A tiny data set, prepared for both stages; the self-training label is magnified by 1.5."""
    make_dataset(tmp_path / "data" / "tiny", train=1)
    for options in stages(tmp_path):
        for folder in LABELS:
            write_label(label_path(options.save_dir, folder, NAME), (SIZE, SIZE))
        write_label(label_path(options.save_dir, SELF_TRAINING_LABELS, NAME), (96, 96))
        points_path(options.save_dir, NAME).parent.mkdir(parents=True)
        points_path(options.save_dir, NAME).write_text("row,col\n3,4\n")
        write_png(background_path(options.save_dir, 1, NAME), np.zeros((SIZE, SIZE), np.uint8))
    return tmp_path


def stages(home) -> tuple[Detection, Segmentation]:
    """The options of both stages."""
    detection, seg = both_stages(home)
    seg = [*seg, "--self-training-epochs", 1]
    return parse(Detection, "", list(map(str, detection))), parse(
        Segmentation, "", list(map(str, seg))
    )


def write_label(path, shape) -> None:
    write_png(path, to_colours(np.ones(shape, np.uint8)))


def load(home, phase: str | int):
    """The crops of a phase of stage 2 or of a round of stage 1."""
    of_detection, of_seg = stages(home)
    module, options = segmentation, of_seg
    if isinstance(phase, int):
        module, options = detection, of_detection
    return module.load_training(options, load_split(options.data_dir)["train"], phase, "memory")


@pytest.mark.parametrize("phase", ["labels", "self_training", 0, 1])
def test_what_fits_is_taken(home, phase):
    assert len(load(home, phase))


@pytest.mark.parametrize("damage", ["wide", "small", "magnified", "huge", "empty", "cut", "text"])
@pytest.mark.parametrize("folder", [*LABELS, SELF_TRAINING_LABELS])
def test_a_label_that_was_damaged_is_named(home, folder, damage):
    path = label_path(stages(home)[1].save_dir, folder, NAME)
    shapes = {"wide": (SIZE, SIZE + 1), "small": (8, 8), "huge": (SIZE * 3, SIZE * 3)}
    if damage == "magnified":
        if folder == SELF_TRAINING_LABELS:
            pytest.skip("this label may be magnified")
        write_label(path, (SIZE * 2, SIZE * 2))
    elif damage in shapes:
        write_label(path, shapes[damage])
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"label"}[damage])
    with pytest.raises(InputError) as error:
        load(home, "self_training" if folder == SELF_TRAINING_LABELS else "labels")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("phase", ["labels", "self_training", 1])
def test_an_image_that_was_replaced_by_one_of_another_size_is_named(home, phase):
    image = load_split(stages(home)[0].data_dir)["train"][0].image
    cv2.imwrite(str(image), np.full((SIZE + 40, SIZE + 10, 3), 200, np.uint8))
    with pytest.raises(InputError, match="train0"):
        load(home, phase)


@pytest.mark.parametrize(
    "text",
    ["row,col\n3\n", "row,col\nx,y\n", "row,col\n3,nan\n", "row,col\n1e300,3\n", "", "a,b\n1,2\n",
     "row,col\n-1,3\n", "row,col\n3,64\n"],
)  # fmt: skip
def test_points_that_were_edited_to_nonsense_are_named(home, text, recwarn):
    path = points_path(stages(home)[0].save_dir, NAME)
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load(home, 0)
    assert str(path) in str(error.value) and not recwarn.list


@pytest.mark.parametrize("mean", ["x", [1, 2], [1, 2, None], [1e999, 0, 0]])
def test_colours_that_are_no_numbers_are_named(home, mean):
    path = colours_path(stages(home)[0].save_dir)
    write_json(path, {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]})
    assert read_colours(path) == ([0.5, 0.5, 0.5], [0.2, 0.2, 0.2])
    path.write_text(str({"mean": mean, "std": [1, 1, 1]}).replace("'", '"').replace("inf", "1e999"))
    with pytest.raises(InputError, match="colours.json"):
        read_colours(path)
