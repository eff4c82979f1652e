"""Files: images of every kind, labels, splits, atomic writing."""

import contextlib
import json
import os

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from code_common.errors import InputError, reason
from code_common.files import image_kinds
from code_common.files.data_set import (
    find_each,
    find_images,
    load_split,
    masks_beside,
    read_split,
)
from code_common.files.images import read_image, read_instances
from code_common.files.layout import label_folders
from code_common.files.reading import read_points, read_table
from code_common.files.writing import (
    write_bytes,
    write_instances,
    write_json,
    write_png,
    write_points,
    write_table,
)
from code_common.learning.checkpoints import load_state

GRADIENT = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def save(path, array, **arguments):
    Image.fromarray(array).save(path, **arguments)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".TIFF"])
def test_rgb_comes_back_as_it_is(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", GRADIENT)
    assert np.array_equal(read_image(path), GRADIENT)


def test_grey_palette_binary_and_alpha(tmp_path):
    """D26: every mode ends as RGB."""
    grey = GRADIENT[..., 0]
    assert np.array_equal(read_image(save(tmp_path / "g.png", grey)), np.stack([grey] * 3, -1))
    Image.fromarray(GRADIENT).quantize(16).save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").shape == (4, 4, 3)
    assert read_image(save(tmp_path / "b.png", grey > 20)).max() == 255
    clear = np.dstack([GRADIENT, np.full((4, 4), 255, np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "o.png", clear)), GRADIENT)
    clear[0, 0, 3] = 0  # transparent is white, as glass on a slide
    assert (read_image(save(tmp_path / "t.png", clear))[0, 0] == 255).all()


def test_sixteen_bit_is_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 257], [25700, 65535]], np.uint16)
    expected = np.array([[0, 1], [100, 255]])
    assert np.array_equal(read_image(save(tmp_path / "g.png", deep))[..., 0], expected)
    rgb = np.stack([deep, deep[::-1], deep], -1)
    cv2.imwrite(str(tmp_path / "c.tif"), rgb[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "c.tif")[..., 1], expected[::-1])


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a\x01\x00\x01\x00\x00"]
)
def test_a_broken_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match="broken.png"):
        read_image(path)


def test_a_truncated_image_is_named(tmp_path):
    path = save(
        tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    )
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cut.png"):
        read_image(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "bomb.png", GRADIENT)
    monkeypatch.setattr(image_kinds, "memory_bytes", lambda: 100)
    with pytest.raises(InputError, match="bomb.png.*half of the memory.*tiles"):
        read_image(path)


@pytest.mark.parametrize("largest", [3, 70000])
def test_instances_round_trip_with_any_id(tmp_path, largest):
    instances = np.zeros((8, 9), np.int32)
    instances[1, 2], instances[5:, 6:] = 2, largest
    write_instances(tmp_path / "a.tif", instances)
    assert np.array_equal(read_instances(tmp_path / "a.tif", (8, 9)), instances)


def test_a_binary_mask_is_no_instance_map(tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[1:3, 1:3] = mask[5:7, 5:7] = 255
    with pytest.raises(InputError, match="binary mask.*2 components"):
        read_instances(save(tmp_path / "m.png", mask), (8, 8))
    mask[5:7, 5:7] = 7
    assert read_instances(save(tmp_path / "i.png", mask), (8, 8)).max() == 255


def test_wrong_labels_are_named(tmp_path):
    with pytest.raises(InputError, match="colour image"):
        read_instances(save(tmp_path / "c.png", GRADIENT), (4, 4))
    path = save(tmp_path / "r.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match="6 x 4 pixels.*4 x 6.*rotated"):
        read_instances(path, (6, 4))
    with pytest.raises(InputError, match="4 x 5"):
        read_instances(path, (5, 4))


def test_points_round_trip_and_bounds(tmp_path):
    points = np.array([[0, 3], [7, 8]])
    write_points(tmp_path / "p.csv", points, note="two")
    assert np.array_equal(read_points(tmp_path / "p.csv", (8, 9)), points)
    with pytest.raises(InputError, match="outside"):
        read_points(tmp_path / "p.csv", (8, 8))
    write_table(tmp_path / "q.csv", ("x", "y"), points)
    with pytest.raises(InputError, match="row,col"):
        read_points(tmp_path / "q.csv", (8, 9))


@pytest.mark.parametrize("text", ["", "row,col\n1,two\n", "row,col\n1\n", "\xff"])
def test_a_broken_table_is_named(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match="t.csv"):
        read_table(tmp_path / "t.csv")


def test_an_empty_table_has_its_columns(tmp_path):
    write_table(tmp_path / "t.csv", ("row", "col"), [])
    assert {k: len(v) for k, v in read_table(tmp_path / "t.csv").items()} == {"row": 0, "col": 0}


def test_names_are_exact(tmp_path):
    """D23: 'img1' is not 'img10', dots belong to the name, any suffix in any case."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("img1.png", "img10.png", "a.b.TIF", "c.jpg"):
        save(images / name, GRADIENT)
    found = find_images(images, ["img1.png", "a.b", "c"])
    assert [s.image.name for s in found] == ["img1.png", "a.b.TIF", "c.jpg"]
    assert [s.name for s in found] == ["img1", "a.b", "c"]
    assert len(find_images(images, None)) == 4
    with pytest.raises(InputError, match="img2.png"):
        find_images(images, ["img2.png"])


def test_both_label_suffixes_and_points(tmp_path):
    for name in ("images/a.png", "images/b.png", "labels_instance/a_label.png",
                 "labels_instance/b_labels.png", "labels_point/b_label_point.png"):  # fmt: skip
        write_png(tmp_path / name, GRADIENT[..., 0])
    write_json(tmp_path / "train_val_test.json", {"train": ["a.png"], "val": ["b.png"]})
    split = load_split(tmp_path)
    assert split["train"][0].instances.name == "a_label.png"
    assert split["val"][0].instances.name == "b_labels.png"
    assert split["val"][0].points.name == "b_label_point.png" and not split["train"][0].points
    assert split["test"] == []


def empty_files(folder, *names):
    """Files of which only the names matter."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")


# file of a label -> the image that it is of
NAMES = {
    "labels_instance/T.tif": "T.png",
    "labels_instance/T_label.png": "T.png",
    "labels_instance/T_LABELS.TIF": "T.png",
    "labels_instance/T_mask.bmp": "T.png",
    "labels_instance/T_Masks.PNG": "T.png",
    "labels_instance/T_cp_masks.png": "T.png",
    "labels_instance/T.png_label.tif": "T.png",
    "labels_instance/T_label.ome.tif": "T.ome.tif",
    "labels_instance/T.ome_label.tif": "T.ome.tif",
    "labels_instance/T.svs_label.tif": "T.png",
    "labels_instance/T.7_label.tif": None,
    "labels_instance/T.1_label.tif": "T.1.png",
    "labels_instance/t_label.tif": None,  # another name (D23)
    "labels_instance/T1_label.tif": None,
    "labels_instance/Mu\u0308ller_mask.tif": "M\u00fcller.png",
    "labels_instance/M\u00fcller_mask.tif": "Mu\u0308ller.png",
    "labels_instance/T_mask_label.tif": "T_mask.png",
    "labels_instance/T_mask.tif": "T_mask.png",  # there is no image T
    "labels_point/T_label_point.png": "T.png",
    "labels_point/T_Label_Point.PNG": "T.png",
    "labels_point/T.png": "T.png",
}


@pytest.mark.parametrize("label", NAMES)
def test_a_label_is_found_by_its_name(tmp_path, label):
    empty_files(tmp_path, f"images/{NAMES[label] or 'T.png'}", label)
    folders = label_folders(tmp_path)
    (files,) = find_images(tmp_path / "images", None, *folders)
    found = files.points if label.startswith("labels_point") else files.instances
    assert found == (tmp_path / label if NAMES[label] else None)
    assert [files.points, files.instances].count(None) == 2 - bool(found)


def test_a_label_is_of_the_image_whose_name_it_extends(tmp_path):
    empty_files(tmp_path, "images/T.png", "images/T_mask.png", "labels_instance/T_mask.tif")
    found = find_images(tmp_path / "images", ["T", "T_mask"], *label_folders(tmp_path))
    assert [files.instances is not None for files in found] == [True, False]


@pytest.mark.parametrize(
    "mask", ["T_mask.tif", "T_cp_masks.png", "T-labelled.TIF", "T_mask (1).png"]
)
def test_masks_beside_their_image_are_no_images_unless_they_are_named(tmp_path, mask):
    empty_files(tmp_path, "T.png", mask, "T_1.png", "u_mask.png")
    assert [f.image.name for f in find_images(tmp_path, None)] == ["T.png", "T_1.png", "u_mask.png"]
    assert masks_beside(tmp_path) == [tmp_path / mask]
    assert masks_beside(tmp_path, [mask]) == masks_beside(tmp_path, [mask[:-4]]) == []
    found, _ = find_each(tmp_path, None, named=[mask])
    assert len(found) == len(find_images(tmp_path, ["T", "T_1", "u_mask", mask])) == 4


def test_a_label_is_of_one_of_two_images_that_differ_in_a_suffix(tmp_path):
    empty_files(tmp_path, "images/T.png", "images/T.ome.tif", "labels_instance/T_label.tif")
    found = find_images(tmp_path / "images", None, *label_folders(tmp_path))
    assert {f.name: f.instances is not None for f in found} == {"T": True, "T.ome": False}


def test_an_image_is_no_label_of_itself(tmp_path):
    empty_files(tmp_path, "a.png", "b.png", "b_mask.png")
    found = find_images(tmp_path, ["a", "b"], tmp_path)
    assert [f.instances and f.instances.name for f in found] == [None, "b_mask.png"]


@pytest.mark.parametrize("other", ["a.png", "a_mask.tif", "a_LABELS.PNG"])
def test_two_labels_of_one_image_are_said(tmp_path, other):
    first = "labels_instance/a_label.tif"
    empty_files(tmp_path, "images/a.png", first, f"labels_instance/{other}")
    with pytest.raises(InputError, match=f"{other}.*: labels of one image; keep") as caught:
        find_images(tmp_path / "images", None, *label_folders(tmp_path))
    assert str(tmp_path / first) in str(caught.value)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/b.png", "", ".."])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="plain file name"):
        find_images(tmp_path, [name])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "'train' is empty"),
        ({"train": []}, "'train' is empty"),
        ([1], "expected"),
        ({"train": "a.png"}, "expected"),
        ({"train": [1]}, "expected"),
        ({"train": ["a.png"], "test": ["a.png"]}, "'train' and in 'test'"),
        ({"train": ["a.png"], "val": ["a.tif"]}, "'train' and in 'val'"),
        ({"train": ["a.png", "a.png"]}, "twice"),
        ({"train": ["a.png"], "all": ["a.png"]}, "'all', which stands for all test images"),
    ],
)
def test_a_wrong_split_is_named(tmp_path, value, message):
    (tmp_path / "train_val_test.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        read_split(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path):
    save(tmp_path / "a.png", GRADIENT)
    save(tmp_path / "a.tif", GRADIENT)
    with pytest.raises(InputError, match="share one name"):
        find_images(tmp_path, ["a"])


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory):
    """A valid file of each kind, and its reader."""
    folder = tmp_path_factory.mktemp("valid")
    image = np.random.default_rng(0).integers(0, 255, (12, 9, 3), np.uint8)
    readers = []
    for ending in ("png", "bmp", "jpg", "tif"):
        Image.fromarray(image).save(folder / f"a.{ending}")
        readers.append((folder / f"a.{ending}", read_image))
    Image.fromarray(image).save(folder / "b.tif", compression="tiff_lzw")
    write_instances(folder / "c.tif", image[..., 0].astype(np.int32))
    write_points(folder / "d.csv", np.array([[1, 2], [3, 4]]))
    write_json(folder / "train_val_test.json", {"train": ["a.png"], "val": ["b.tif"]})
    torch.save({"network": {"a": torch.zeros(3)}, "model": "resnet18"}, folder / "e.pt")
    return [
        *readers,
        (folder / "b.tif", read_image),
        (folder / "c.tif", lambda path: read_instances(path, (12, 9))),
        (folder / "d.csv", lambda path: read_points(path, (12, 9))),
        (folder / "train_val_test.json", lambda path: read_split(path.parent)),
        (folder / "e.pt", load_state),
    ]


def test_errors_without_a_word_and_absurd_sizes_are_refused(tmp_path):
    """What a long run of the test below has found."""
    assert reason(EOFError()) == "EOFError" and reason(ValueError("a\nb")) == "a"
    image = np.zeros((4, 4, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tag = tiff.pages[0].tags["ImageWidth"]
        place, size = tag.valueoffset, tag.valuebytecount
    content[place : place + size] = b"\xff" * (size - 1) + b"\x7f"
    (tmp_path / "a.tif").write_bytes(bytes(content))
    with pytest.raises(InputError, match="a.tif: "):
        read_image(tmp_path / "a.tif")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_never_a_crash(valid_files, tmp_path_factory, data):
    """Bytes changed, taken out or put in: every reader gives a value or our own error."""
    path, read = data.draw(st.sampled_from(valid_files))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        what = data.draw(st.sampled_from(["change", "cut", "put"]))
        if what == "change":
            content[place] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del content[place : place + data.draw(st.integers(1, 20))]
        else:
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        if not content:
            break
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(bytes(content))
    with contextlib.suppress(InputError):
        read(folder / path.name)
