"""Times of the fast code beside its slow, obvious version, in one run; a table, and JSON.

python tests/benchmarks/benchmark.py [--out FILE.json] [--threads N]
"""

import argparse
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[k]) for k in (1, 2)]  # tests, the project

from twins import slow_aji, slow_dice, slow_hausdorff, slow_known, slow_refine, slow_voronoi

from code_common.arrays import points_from_instances
from code_common.errors import InputError, run_script
from code_common.files.data_set import ImageFiles, load_split
from code_common.files.images import read_image, read_instances
from code_common.files.run_folder import LABELS, label_path, points_path
from code_common.files.writing import write_json, write_png, write_points
from code_common.inference.tiling import Tiling, predict_prob
from code_common.learning.crops import CropDataset
from code_common.learning.network import ResUNet, mixed_precision
from code_detection import dataset as detection_dataset
from code_detection.labels import distance_to
from code_detection.options import Options as DetectionOptions
from code_seg import dataset as segmentation_dataset
from code_seg.instances import components
from code_seg.labels import (
    cluster,
    cluster_label,
    refine_in_cells,
    to_colours,
    voronoi_cells,
    voronoi_label,
)
from code_seg.metrics import aji, object_dice, object_hausdorff, overlaps, score
from code_seg.options import Options as SegmentationOptions
from tests.benchmarks.crf_loss import median_seconds

MO = Path(__file__).resolve().parents[3] / "shared" / "data" / "MO"
SIDE = 1000  # of an MO tile in pixels
NUCLEI = 551  # the tile with about as many is taken
R2 = 22  # pixels; that of the detector on MO


class Row(NamedTuple):
    """A line of the table: seconds of the fast code and of the slow one."""

    name: str
    fast: float
    slow: float
    goal: float | None = None  # seconds that the fast code shall take at most


def once(action) -> tuple:
    """Result and time of an action that takes long enough to time once."""
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began


def label_rows(image: np.ndarray, truth: np.ndarray) -> list[Row]:
    """Voronoi and cluster label of a tile with all of its points."""
    points, shape = points_from_instances(truth), truth.shape

    def fast():
        cells, distance = voronoi_cells(points, shape)
        voronoi_label(points, cells)
        cluster_label(image, points, cells, distance, np.random.default_rng(0))

    cells, distance = voronoi_cells(points, shape)
    colour = image.reshape(-1, 3).astype(np.float32) / 10
    features = np.hstack([colour, np.minimum(distance, 20).reshape(-1, 1)])
    group = cluster(features, 3, np.random.default_rng(0)).reshape(shape)
    mask = group == np.bincount(group[points[:, 0], points[:, 1]]).argmax()
    _, slow_cells = once(lambda: slow_voronoi(points, shape))
    refined, slow_refining = once(lambda: slow_refine(mask, cells))
    assert np.array_equal(refine_in_cells(mask, cells), refined)
    name = f"labels, {SIDE} x {SIDE}, {len(points)} nuclei"
    return [Row(name, median_seconds(fast, 5), slow_cells + slow_refining, goal=0.5)]


def metric_rows(truth: np.ndarray) -> list[Row]:
    """Scores of a prediction with errors: shifted, eroded, some missed."""
    moved = np.roll(truth, (2, 3), (0, 1))
    predicted = components((cv2.erode((moved > 0).astype(np.uint8), np.ones((3, 3)))) * 0.9, 20)
    predicted[np.isin(predicted, np.arange(1, predicted.max(), 10))] = 0
    table = overlaps(truth, predicted)
    true_aji, aji_seconds = once(lambda: slow_aji(truth, predicted))
    true_dice, dice_seconds = once(lambda: slow_dice(truth, predicted))
    true_hausdorff, hausdorff_seconds = once(lambda: slow_hausdorff(truth, predicted))
    assert abs(aji(table) - true_aji) < 1e-12 and abs(object_dice(table) - true_dice) < 1e-12
    assert abs(object_hausdorff(truth, predicted, table) / true_hausdorff - 1) < 1e-5
    fast_aji = median_seconds(lambda: aji(overlaps(truth, predicted)), 15)
    fast_all = median_seconds(lambda: score(truth, predicted, 11), 5)
    slow_all = aji_seconds + dice_seconds + hausdorff_seconds
    return [
        Row("AJI alone", fast_aji, aji_seconds, goal=0.005),
        Row("all metrics", fast_all, slow_all, goal=0.3),
    ]


def weight_rows() -> list[Row]:
    """The region around points in which something is known, for a crop with 5 points."""
    side = 224
    points = np.random.default_rng(0).integers(0, side, (5, 2))

    def fast():
        return distance_to(points, (side, side), R2) <= R2

    def slow():
        return slow_known(points, (side, side), R2)

    assert np.array_equal(fast(), slow())
    name = f"detection weight map, {side} x {side}"
    return [Row(name, median_seconds(fast, 50), median_seconds(slow, 3))]


def inference_rows(image: np.ndarray) -> list[Row]:
    """Tiled inference of a 1000 x 1000 tile, 49 tiles of 224."""
    network = ResUNet("resnet34", 1).eval().to(memory_format=torch.channels_last)
    plain = ResUNet("resnet34", 1).eval()

    def seconds(one, tiling):
        return median_seconds(lambda: predict_prob(one, image, tiling), 1)

    eights = Tiling(tile=224, overlap=80, batch_size=8)
    half = replace(eights, precision=torch.bfloat16)
    whole = Tiling(tile=SIDE, overlap=0, batch_size=1, precision=torch.bfloat16)
    slow = seconds(plain, replace(eights, batch_size=1))
    return [
        Row("tiled inference, fp32, batch 8", seconds(network, eights), slow),
        Row("tiled inference, bf16, batch 8", seconds(network, half), slow),
        Row(f"inference, bf16, one tile of {SIDE}", seconds(network, whole), slow),
    ]


def step_seconds(layout: torch.memory_format, precision: torch.dtype, batch: torch.Tensor) -> float:
    """What a training step of ResUNet-34 takes on a batch [B, 3, H, W]."""
    torch.manual_seed(0)
    network = ResUNet("resnet34", 1).to(memory_format=layout)
    fused = layout == torch.channels_last
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=fused)
    x = batch.contiguous(memory_format=layout)

    def step():
        with mixed_precision(precision, x.device):
            out = network(x)
        loss = out.float().sigmoid().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return median_seconds(step, 3)


def training_rows() -> list[Row]:
    """A training step of ResUNet-34, and what making its crops takes of it."""
    batch = torch.rand(8, 3, 224, 224)
    slow = step_seconds(torch.contiguous_format, torch.float32, batch)
    fast = step_seconds(torch.channels_last, torch.float32, batch)
    half = step_seconds(torch.channels_last, torch.bfloat16, batch)
    return [
        Row("training step, fp32, channels last, fused Adam", fast, slow),
        Row("training step, bf16, channels last, fused Adam", half, slow),
        *crop_rows(half / len(batch)),
    ]


def make_crops(folder: Path) -> dict[int, CropDataset]:
    """The training crops of each stage on MO, with random points and labels, in `folder`."""
    place = {"dataset": "MO", "data_dir": MO, "save_dir": folder}
    rng, image_files = np.random.default_rng(0), load_split(MO)["train"]
    for files in image_files:
        points = rng.integers(0, SIDE, (30, 2))
        label = to_colours(rng.integers(0, 3, (SIDE, SIDE)).astype(np.uint8))
        write_points(points_path(folder, files.name), points)
        for kind in LABELS:
            write_png(label_path(folder, kind, files.name), label)
    detection = DetectionOptions(**place).resolved()
    segmentation = SegmentationOptions(**place).resolved()
    return {
        1: detection_dataset.load_training(detection, image_files, 0, "memory"),
        2: segmentation_dataset.load_training(segmentation, image_files, "labels", "memory"),
    }


def seconds_per_crop(dataset: CropDataset, count: int = 96) -> float:
    """What making one of a data set's first crops takes."""

    def crops():
        return [dataset[0, index] for index in range(count)]

    return median_seconds(crops, 3) / count


def crop_rows(step: float) -> list[Row]:
    """Making a training crop of each stage, beside the `step` seconds that the network takes of it.

    In one process, of the MO training tiles, with the augmentation of the options.
    """
    with tempfile.TemporaryDirectory() as folder:
        stages = make_crops(Path(folder))
    return [
        Row(
            f"a crop of stage {stage}; slow: its training step, bf16",
            seconds_per_crop(dataset),
            step,
            goal=step / 5,
        )
        for stage, dataset in stages.items()
    ]


def report(rows: list[Row]) -> list[dict]:
    """Print rows and return them for JSON."""
    for name, fast, slow, goal in rows:
        wanted = f"<= {1e3 * goal:g} ms" if goal else ""
        print(f"{name:48s}{1e3 * fast:9.2f} ms{1e3 * slow:9.0f} ms{slow / fast:8.1f}x   {wanted}")
    return [
        dict(name=name, fast_s=fast, slow_s=slow, ratio=slow / fast, goal_s=goal)
        for name, fast, slow, goal in rows
    ]


def choose_tile() -> tuple[ImageFiles, np.ndarray]:
    """The MO training tile with about NUCLEI nuclei, and its instance map."""
    tiles = []
    for files in load_split(MO)["train"]:
        truth = read_instances(files.instances, (SIDE, SIDE))
        tiles.append((abs(len(np.unique(truth)) - NUCLEI), files.name, files, truth))
    *_, files, truth = min(tiles, key=lambda tile: tile[:2])
    return files, truth


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads")
    args = parser.parse_args()
    if not MO.is_dir():
        raise InputError(f"{MO}: the benchmark needs the MO data set there")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    files, truth = choose_tile()
    image = read_image(files.image)
    print(f"{files.name}; {args.threads} threads; torch {torch.__version__}; {platform.machine()}")
    print(f"{'':48s}{'fast':>12s}{'slow':>12s}{'ratio':>9s}   goal")
    figures = []
    for rows in (label_rows(image, truth), metric_rows(truth), weight_rows()):
        figures += report(rows)
    figures += report(inference_rows(image))
    figures += report(training_rows())
    if args.out:
        write_json(args.out, {"tile": files.name, "threads": args.threads, "rows": figures})


if __name__ == "__main__":
    run_script(main)
