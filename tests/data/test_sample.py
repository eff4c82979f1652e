"""The synthetic sample: reproducible, exact masks, looks like H&E in numbers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.data_set import load_split
from code_common.files.reading import read_image, read_instances

PATH = Path(__file__).resolve().parents[2] / "data" / "make_sample.py"
spec = importlib.util.spec_from_file_location("make_sample", PATH)
make_sample = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    make_sample.make_sample(out, 2, 1, 1, 256, 1)
    return out


def test_the_layout_is_the_projects(folder):
    split = load_split(folder)
    assert [len(split[k]) for k in ("train", "val", "test")] == [2, 1, 1]
    assert all(s.instances for part in split.values() for s in part)


def test_tiles_look_like_h_and_e(folder):
    for sample in load_split(folder)["train"]:
        image = read_image(sample.image).astype(float)
        instances = read_instances(sample.instances, image.shape[:2])
        nuclei = instances > 0
        assert 0.12 < nuclei.mean() < 0.5
        inside, outside = image[nuclei].mean(0), image[~nuclei].mean(0)
        assert (outside - inside > 20)[[0, 1]].all()  # nuclei are darker in red and green
        assert inside[2] > inside[0] > inside[1]  # blue-violet
        assert outside[0] > outside[1] and outside[2] > outside[1]  # pink
        assert image[nuclei].std(0).min() > 10  # textured


def test_nuclei_vary_touch_and_are_whole(folder):
    import cv2

    sample = load_split(folder)["train"][0]
    instances = read_instances(sample.instances, (256, 256))
    areas = np.bincount(instances.ravel())[1:]
    assert 60 < len(areas) < 160 and areas.min() > 0
    assert 150 < np.median(areas) < 400 and areas.std() > 50
    # Fewer components than nuclei: some touch.
    touching = cv2.connectedComponents((instances > 0).astype(np.uint8))[0] - 1
    assert touching < len(areas)


def test_the_seed_decides():
    tiles = [make_sample.make_tile(np.random.default_rng(s), 64) for s in (1, 1, 2)]
    assert np.array_equal(tiles[0][0], tiles[1][0]) and np.array_equal(tiles[0][1], tiles[1][1])
    assert not np.array_equal(tiles[0][0], tiles[2][0])


def test_an_existing_data_set_is_not_touched(folder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["make_sample.py", "--out", str(folder)])
    with pytest.raises(InputError, match="already"):
        make_sample.main()
