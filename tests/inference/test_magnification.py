"""Images seen magnified: geometry, parts against the whole, and what it is for: small nuclei."""

import numpy as np
import pytest
import torch
from conftest import TINY
from scipy import ndimage
from torch import nn

from code_common.config import parse
from code_common.files.data_set import load_split
from code_common.files.reading import read_image, read_json
from code_common.files.writing import write_instances, write_json, write_png, write_points
from code_common.inference.magnification import (
    enlarged,
    enlarged_map,
    enlarged_points,
    enlarged_slide,
    factor_of,
    magnification,
    reduced_label,
    reduced_map,
    reduced_rows,
)
from code_common.inference.slides import Slide
from code_common.inference.tiling import reader
from code_seg import prepare_masks, train
from code_seg.evaluate import choose_magnification, median_radius, predict_nuclei
from code_seg.options import Options
from code_seg.prepare_data import prepare

FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0)
TILING = dict(tile=64, overlap=16, batch_size=4, views=8)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


class Dark(nn.Module):
    """A network that calls nucleus what is dark in red."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return 40 * (0.5 - x[:, :1]) + self.one


def nuclei_image(shape, radius, step):
    """A light image with dark disks on a grid, and their centres."""
    image = np.full((*shape, 3), 220, np.uint8)
    centres = np.mgrid[step // 2 : shape[0] : step, step // 2 : shape[1] : step].reshape(2, -1).T
    y, x = np.mgrid[: shape[0], : shape[1]]
    for row, col in centres:
        image[(y - row) ** 2 + (x - col) ** 2 <= radius**2] = 40
    return image, centres


@pytest.mark.parametrize(
    ("radius", "factor"), [(30, 1), (12, 1), (10, 1.25), (8, 1.5), (6, 2), (2, 2), (np.nan, 1)]
)
def test_the_factor_is_a_quarter_from_1_to_2(radius, factor):
    assert magnification(radius, 12.0) == factor


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shape", [(64, 64), (61, 90), (7, 5)])
def test_what_is_enlarged_comes_back(rng, shape, factor):
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    large = enlarged(image, factor)
    assert factor_of(large, image) == factor
    labels = rng.integers(0, 3, shape).astype(np.uint8)
    assert enlarged_map(labels, factor).shape == large.shape[:2]
    assert (reduced_label(enlarged_map(labels, factor), image) == labels).all()
    flat = np.full(large.shape[:2], 0.3, np.float32)
    assert reduced_map(flat, shape, factor).shape == shape
    np.testing.assert_allclose(reduced_map(flat, shape, factor), 0.3, rtol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
def test_points_stay_on_their_pixels(factor):
    points = np.stack(np.mgrid[:30, :30], -1).reshape(-1, 2)
    ids = np.arange(1, 901).reshape(30, 30)
    large = enlarged_points(points, factor)
    assert len(np.unique(large, axis=0)) == len(points)
    assert (enlarged_map(ids, factor)[tuple(large.T)] == ids.ravel()).all()


def test_a_reduced_map_is_the_mean_over_each_pixel(rng):
    prob = rng.random((16, 24)).astype(np.float32)
    means = prob.reshape(8, 2, 12, 2).mean((1, 3))
    np.testing.assert_allclose(reduced_map(prob, (8, 12), 2.0), means, rtol=1e-5)
    np.testing.assert_allclose(reduced_map(prob, (7, 10), 2.0), means[:7, :10], rtol=1e-5)


def test_a_blob_stays_where_it_is():
    image, centres = nuclei_image((90, 90), 5, 30)
    for factor in FACTORS:
        dark = (enlarged(image, factor)[..., 0] < 130).astype(np.float32)
        back = reduced_map(dark, (90, 90), factor)
        assert abs(back.sum() - (image[..., 0] < 130).sum()) < 0.06 * back.sum()
        weight = back[:30, :30]
        middle = [(weight * axis).sum() / weight.sum() for axis in np.mgrid[:30, :30]]
        np.testing.assert_allclose(middle, centres[0], atol=0.05)


@pytest.mark.parametrize("factor", FACTORS)
def test_parts_of_a_slide_are_parts_of_the_whole(rng, factor):
    """Rounding may move a pixel by one grey level: positions are computed in single precision."""
    image = rng.integers(0, 256, (83, 106, 3), dtype=np.uint8)
    slide = enlarged_slide(Slide(image.shape[:2], reader(image), 0.5, 1.0, None), factor)
    whole = enlarged(image, factor)
    assert slide.shape == whole.shape[:2]
    assert slide.mpp == 0.5 / factor
    for _ in range(50):
        row, col = (int(rng.integers(0, n - 1)) for n in slide.shape)
        rows, cols = (int(rng.integers(1, 70)) for _ in range(2))
        part = slide.read(row, col, rows, cols).astype(int)
        expected = whole[row : row + rows, col : col + cols].astype(int)
        assert part.shape == expected.shape
        assert abs(part - expected).max() <= 1


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("height", [83, 84, 3])
def test_rows_that_come_one_after_the_other_are_reduced_as_the_whole(rng, factor, height):
    image = np.zeros((height, 50, 3), np.uint8)
    prob = rng.random(enlarged(image, factor).shape[:2]).astype(np.float32)
    cuts = [0, *np.sort(rng.choice(len(prob), min(4, len(prob) - 1), replace=False)), len(prob)]
    parts = [(int(a), prob[None, a:b]) for a, b in zip(cuts, cuts[1:], strict=False) if a < b]
    rows = list(reduced_rows(parts, (height, 50), factor))
    assert [row for row, _ in rows] == np.cumsum([0, *(p.shape[1] for _, p in rows)])[:-1].tolist()
    together = np.concatenate([part for _, part in rows], 1)[0]
    np.testing.assert_allclose(together, reduced_map(prob, (height, 50), factor), atol=1e-6)


@pytest.mark.parametrize("radius", [4, 6, 9, 14])
def test_the_radius_is_that_of_the_nuclei(radius):
    image, _ = nuclei_image((300, 300), radius, 40)
    found = median_radius(Dark(), reader(image), (300, 300), None, TILING)
    assert abs(found - radius) < 0.5


def test_of_a_large_image_parts_around_the_points_tell():
    image, centres = nuclei_image((1500, 1400), 12, 60)
    small, _ = nuclei_image((500, 1400), 5, 20)
    image[:500] = small
    shape = image.shape[:2]
    above, below = centres[centres[:, 0] < 200], centres[centres[:, 0] > 1000]
    for points, radius in ((above, 5), (below, 12)):
        found = median_radius(Dark(), reader(image), shape, points, TILING)
        assert abs(found - radius) < 0.5
    assert 4 < median_radius(Dark(), reader(image), shape, None, TILING) < 13


def test_images_of_large_nuclei_or_of_none_are_seen_as_they_are():
    network = Dark()
    large, _ = nuclei_image((200, 200), 13, 50)
    small, _ = nuclei_image((200, 200), 6, 25)
    none = np.full((200, 200, 3), 230, np.uint8)

    def choose(image, wanted):
        read = reader(image)
        return choose_magnification(network, read, image.shape[:2], None, TILING, wanted)

    assert [choose(image, 12.0) for image in (large, small, none)] == [1, 2, 1]
    assert choose(small, 0.0) == 1


def test_the_map_of_an_image_seen_magnified_fits_the_image():
    image, centres = nuclei_image((121, 130), 6, 30)
    prob = predict_nuclei(Dark(), image, centres, TILING, 12.0)
    assert prob.shape == (121, 130)
    assert ((prob > 0.5) != (image[..., 0] < 130)).mean() < 0.01


def test_a_network_learns_small_nuclei_as_large_as_others(tmp_path, monkeypatch):
    """Nuclei of 6 px and of 12 px: mask labels, crops, and what validation sees."""
    data, stage_1 = tmp_path / "data" / "tiny", tmp_path / "detection"
    split = {"train": ["small.png", "large.png"], "val": ["seen.png"], "test": []}
    for name, radius in (("small", 6), ("large", 12), ("seen", 6)):
        image, centres = nuclei_image((170, 170), radius, 4 * radius)
        instances = ndimage.label(image[..., 0] < 130)[0]
        write_png(data / "images" / f"{name}.png", image)
        write_instances(data / "labels_instance" / f"{name}_label.tif", instances)
        write_points(stage_1 / "points" / f"{name}.csv", centres)
        write_points(stage_1 / "detections" / f"{name}_points.csv", centres)
    write_json(data / "train_val_test.json", split)
    arguments = [*TINY, "--data-root", tmp_path / "data", "--save-dir", tmp_path / "seg"]
    arguments += ["--detection-results-dir", stage_1, "--mask-epochs", 1, "--magnify-to", 12,
                  "--elastic", 0]  # fmt: skip
    options = parse(Options, "", list(map(str, arguments)))
    prepare(options)
    monkeypatch.setattr(prepare_masks, "load_network", lambda *_: Dark())
    assert "2 images of small nuclei are magnified" in prepare_masks.write_mask_labels(options)

    sides = {n: len(read_image(tmp_path / "seg/labels_masks" / f"{n}.png"))
             for n in ("small", "large", "seen")}  # fmt: skip
    assert sides == {"small": 344, "large": 170, "seen": 344}  # up to whole units of 4 px
    errors = read_json(tmp_path / "seg" / "mask_label_errors.json")["images"]
    assert max(own["wrong"] for own in errors.values()) < 0.03
    samples = load_split(data)
    for sample in samples["train"]:
        one = train.load_training(options, [sample], 1, "masks")
        areas = []
        for index in range(len(one)):
            found, count = ndimage.label(one[0, index]["clusters"].numpy() == 1)
            edge = np.unique(np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]]))
            whole = np.setdiff1d(np.arange(1, count + 1), edge)
            areas += ndimage.sum_labels(found > 0, found, whole).tolist()
        # Most, for some are cut by the image's border.
        assert 10 < np.sqrt(np.quantile(areas, 0.75) / np.pi) < 15, sample.name
    # The first network sees patches of 64 px of the image as it is.
    assert len(train.load_training(options, samples["train"][:1], 1)) == 9
    scores = train.make_validate(options, Dark(), options.tiling(torch.device("cpu")), "masks")()
    assert scores["score"] > 0.9
