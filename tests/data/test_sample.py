"""The synthetic sample: reproducible, exact masks, looks like H&E in numbers."""

import cv2
import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.data_set import load_split
from code_common.files.images import read_image, read_instances
from code_common.files.layout import SPLIT
from data.make_sample import main, make_sample, make_tile, parse_arguments, renumber

SIDE = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    make_sample(out, train=2, val=1, test=1, size=SIDE, seed=1)
    return out


def test_the_layout_is_the_projects(folder):
    split = load_split(folder)
    assert [len(split[k]) for k in ("train", "val", "test")] == [2, 1, 1]
    assert all(files.instances for part in split.values() for files in part)


def test_tiles_look_like_h_and_e(folder):
    for files in load_split(folder)["train"]:
        image = read_image(files.image).astype(float)
        instances = read_instances(files.instances, image.shape[:2])
        nuclei = instances > 0
        assert 0.12 < nuclei.mean() < 0.5
        inside, outside = image[nuclei].mean(0), image[~nuclei].mean(0)
        assert (outside - inside > 20)[[0, 1]].all()  # nuclei are darker in red and green
        assert inside[2] > inside[0] > inside[1]  # blue-violet
        assert outside[0] > outside[1] and outside[2] > outside[1]  # pink
        assert image[nuclei].std(0).min() > 10  # textured


def test_nuclei_vary_touch_and_are_whole(folder):
    files = load_split(folder)["train"][0]
    instances = read_instances(files.instances, (SIDE, SIDE))
    areas = np.bincount(instances.ravel())[1:]
    assert 60 < len(areas) < 160 and areas.min() > 0
    assert 150 < np.median(areas) < 400 and areas.std() > 50
    # Fewer components than nuclei: some touch.
    touching = cv2.connectedComponents((instances > 0).astype(np.uint8))[0] - 1
    assert touching < len(areas)


def test_the_seed_decides():
    first, same, other = (make_tile(np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert np.array_equal(first[0], same[0]) and np.array_equal(first[1], same[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("ids", "expected"), [([0, 7, 3, 7], [0, 2, 1, 2]), ([9, 4, 4, 9], [2, 1, 1, 2])]
)
def test_ids_have_no_gaps_and_0_is_background(ids, expected):
    assert renumber(np.array([ids])).tolist() == [expected]


def run(out, *more):
    words = ["--out", out, "--train", 1, "--val", 0, "--test", 1, "--size", 64, *more]
    main(parse_arguments([str(word) for word in words]))


@pytest.mark.parametrize(
    "name",
    [
        "images/train_1.png",
        "images/own.tif",
        "images/test_1.png",
        "labels_instance/train_1_label.tif",
        "labels_point/train_1_label_point.png",
    ],
)
def test_images_and_labels_of_ones_own_are_not_touched(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match=f"{path.name}: there already, and not of this sample"):
        run(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_bytes() == b"precious"


def test_a_stopped_call_goes_on(tmp_path):
    run(tmp_path)
    whole = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for name in (SPLIT, "images/test_1.png", "labels_instance/test_1_label.tif"):
        (tmp_path / name).unlink()
    (tmp_path / "images" / ".test_1.png.tmp").write_bytes(b"half")
    run(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == whole
    (tmp_path / SPLIT).unlink()
    with pytest.raises(InputError, match="not of this sample"):
        run(tmp_path, "--seed", 2)


def test_an_existing_data_set_is_not_touched(folder):
    with pytest.raises(InputError, match="already"):
        main(parse_arguments(["--out", str(folder)]))
