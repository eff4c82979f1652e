"""Images seen magnified: geometry, parts against the whole, and small nuclei in training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from scipy import ndimage
from torch import nn

from code_common.config import parse
from code_common.files.data_set import load_split
from code_common.files.images import read_image
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    SELF_TRAINING_LABELS,
    detections_path,
    label_errors_path,
    label_path,
    points_path,
)
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
from code_common.inference.tiling import VIEWS, Tiling, reader
from code_common.learning.patches import windows
from code_seg.dataset import load_training
from code_seg.labels import NUCLEUS
from code_seg.magnify import (
    look_for_size,
    magnification_and_look,
    predict_enlarged,
    predict_nuclei,
)
from code_seg.options import Options
from code_seg.prepare_data import prepare
from code_seg.self_training import write_self_training_labels
from code_seg.train import make_validate

FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0)
TILING = Tiling(tile=64, overlap=16, batch_size=4, views=VIEWS[8])
WANTED = 12.0  # radius in pixels that nuclei shall have
LIGHT, DARK, THRESHOLD = 220, 40, 130  # grey values


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
    image = np.full((*shape, 3), LIGHT, np.uint8)
    centres = np.mgrid[step // 2 : shape[0] : step, step // 2 : shape[1] : step].reshape(2, -1).T
    for row, col in centres:
        first_row, first_col = max(0, row - radius), max(0, col - radius)
        part = image[first_row : row + radius + 1, first_col : col + radius + 1]
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        part[(y + first_row - row) ** 2 + (x + first_col - col) ** 2 <= radius**2] = DARK
    return image, centres


@pytest.mark.parametrize(
    ("radius", "factor"), [(30, 1), (12, 1), (10, 1.25), (8, 1.5), (6, 2), (2, 2), (np.nan, 1)]
)
def test_the_factor_is_a_quarter_from_1_to_2(radius, factor):
    assert magnification(radius, WANTED) == factor


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
        dark = (enlarged(image, factor)[..., 0] < THRESHOLD).astype(np.float32)
        back = reduced_map(dark, (90, 90), factor)
        assert abs(back.sum() - (image[..., 0] < THRESHOLD).sum()) < 0.06 * back.sum()
        weight = back[:30, :30]  # of the first blob
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
    measured = look_for_size(Dark(), reader(image), (300, 300), None, TILING).radius
    assert abs(measured - radius) < 0.5


@pytest.fixture(scope="module")
def large_image():
    """A large image of small nuclei above and large ones below, and the centres of a grid."""
    image, centres = nuclei_image((1500, 1400), 12, 60)
    image[:500] = nuclei_image((500, 1400), 5, 20)[0]
    return image, centres


@pytest.mark.parametrize(("first", "last", "radius"), [(0, 200, 5), (1000, 1500, 12)])
def test_of_a_large_image_parts_around_the_points_tell(large_image, first, last, radius):
    image, centres = large_image
    points = centres[(centres[:, 0] >= first) & (centres[:, 0] < last)]
    measured = look_for_size(Dark(), reader(image), image.shape[:2], points, TILING).radius
    assert abs(measured - radius) < 0.5


def test_of_a_large_image_without_points_parts_along_the_diagonal_tell(large_image):
    image, _ = large_image
    assert 4 < look_for_size(Dark(), reader(image), image.shape[:2], None, TILING).radius < 13


def chosen(image, wanted):
    """The factor by which an image is magnified."""
    return magnification_and_look(Dark(), reader(image), image.shape[:2], None, TILING, wanted)[0]


def test_images_of_large_nuclei_or_of_none_are_seen_as_they_are():
    assert chosen(nuclei_image((200, 200), 13, 50)[0], WANTED) == 1
    assert chosen(np.full((200, 200, 3), LIGHT, np.uint8), WANTED) == 1


def test_images_of_small_nuclei_are_magnified_where_that_is_wanted():
    small, _ = nuclei_image((200, 200), 6, 25)
    assert chosen(small, WANTED) == 2
    assert chosen(small, 0.0) == 1


def test_the_map_of_an_image_seen_magnified_fits_the_image():
    image, centres = nuclei_image((121, 130), 6, 30)
    prob = predict_nuclei(Dark(), image, centres, TILING, WANTED)
    assert prob.shape == (121, 130)
    assert ((prob > 0.5) != (image[..., 0] < THRESHOLD)).mean() < 0.01


@pytest.mark.parametrize("views", [1, 2, 8])
@pytest.mark.parametrize(("nucleus", "looks"), [(12, 0), (6, 1)])
def test_a_first_look_is_part_of_the_prediction_where_nothing_is_magnified(views, nucleus, looks):
    """No network sees the same pixels twice in one way; the result is that of all views."""
    image, centres = nuclei_image((128, 128), nucleus, 30)
    tiling, seen = replace(TILING, views=VIEWS[views]), []

    class Counted(Dark):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    prob = predict_nuclei(Counted(), image, centres, tiling, WANTED)
    factor = 1 if nucleus == 12 else 2
    with_looks, seen = sum(seen), []
    plain = predict_enlarged(Counted(), image, tiling, factor)
    assert with_looks - sum(seen) == looks * 9  # tiles
    np.testing.assert_allclose(prob, plain, atol=1e-6)


# Radius in pixels of the nuclei of each image of a data set that is prepared for self-training.
RADII = {"small": 6, "large": 12, "seen": 6}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Options of a run whose first network has labelled small and large nuclei, and its message."""
    folder = tmp_path_factory.mktemp("prepared")
    data, stage_1 = folder / "data" / "tiny", folder / "detection"
    for name, radius in RADII.items():
        image, centres = nuclei_image((170, 170), radius, 4 * radius)
        instances = ndimage.label(image[..., 0] < THRESHOLD)[0]
        write_png(data / "images" / f"{name}.png", image)
        write_instances(data / "labels_instance" / f"{name}_label.tif", instances)
        write_points(points_path(stage_1, name), centres)
        write_points(detections_path(stage_1, name), centres)
    split = {"train": ["small.png", "large.png"], "val": ["seen.png"], "test": []}
    write_json(data / "train_val_test.json", split)
    places = ["--data-root", folder / "data", "--save-dir", folder / "seg"]
    places += ["--detection-results-dir", stage_1]
    training = f"--self-training-epochs 1 --nucleus-radius {WANTED} --elastic 0".split()
    arguments = [*TINY, *places, *training]
    options = parse(Options, "", list(map(str, arguments)))
    prepare(options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("code_seg.self_training.load_network", lambda *_: Dark())
        message = write_self_training_labels(options)
    return options, message


@pytest.mark.parametrize(("name", "side"), [("small", 344), ("large", 170), ("seen", 344)])
def test_labels_of_small_nuclei_are_magnified(prepared, name, side):
    """Twofold, up to whole units of 4 px: 170 px are 172, and then 344."""
    options, message = prepared
    label = read_image(label_path(options.save_dir, SELF_TRAINING_LABELS, name))
    assert label.shape[:2] == (side, side)
    assert "2 images of small nuclei are magnified" in message


def test_labels_of_magnified_images_are_compared_with_magnified_masks(prepared):
    options, _ = prepared
    errors = read_json(label_errors_path(options.save_dir, "self_training"))["images"]
    assert set(errors) == set(RADII)
    assert max(error["wrong"] for error in errors.values()) < 0.03


def whole_nuclei(label):
    """The areas of the nuclei [h, w] bool that the border does not cut."""
    numbers, count = ndimage.label(label)
    border = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    whole = np.setdiff1d(np.arange(1, count + 1), border)
    return ndimage.sum_labels(label, numbers, whole).tolist()


@pytest.mark.parametrize("name", ["small", "large"])
def test_crops_show_all_nuclei_equally_large(prepared, name):
    options, _ = prepared
    (files,) = (f for f in load_split(options.data_dir)["train"] if f.name == name)
    crops = load_training(options, [files], "self_training", "memory")
    areas = []
    for index in range(len(crops)):
        areas += whole_nuclei(crops[0, index]["clusters"].numpy() == NUCLEUS)
    # Not the median: some are cut by the border of the image.
    assert 10 < np.sqrt(np.quantile(areas, 0.75) / np.pi) < 15


def test_the_first_network_sees_images_as_they_are(prepared):
    options, _ = prepared
    small = load_split(options.data_dir)["train"][0]
    patches = windows((170, 170), options.patch_size)
    assert len(load_training(options, [small], "labels", "memory")) == len(patches) == 9


def test_validation_sees_images_magnified(prepared):
    options, _ = prepared
    scores = make_validate(options, Dark(), TILING, "self_training")()
    assert scores["score"] > 0.9
