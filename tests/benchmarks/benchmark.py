"""Times of the fast code beside its slow, obvious version, in one run; a table, and JSON.

python tests/benchmarks/benchmark.py [--out FILE.json] [--threads N]
"""

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[k]) for k in (1, 2)]

from twins import slow_aji, slow_dice, slow_hausdorff, slow_known, slow_refine, slow_voronoi

from code_common.errors import InputError, run_script
from code_common.files.data_set import load_split
from code_common.files.reading import read_image, read_instances
from code_common.files.writing import write_json, write_png, write_points
from code_common.inference.tiling import predict_image
from code_common.learning.network import ResUNet
from code_detection.labels import distance_to, points_from_instances
from code_detection.options import Options as DetectionOptions
from code_detection.train import load_training as load_detection
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
from code_seg.options import Options as SegOptions
from code_seg.train import load_training as load_seg
from tests.benchmarks.crf_loss import median_seconds as seconds

MO = Path(__file__).resolve().parents[3] / "shared" / "data" / "MO"


def once(action) -> tuple:
    """Result and time of an action that takes long enough to time once."""
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began


def labels(image, truth) -> list[tuple]:
    """Voronoi and cluster label of a tile with all of its points."""
    points = points_from_instances(truth)
    shape = truth.shape

    def fast():
        cells, distance = voronoi_cells(points, shape)
        voronoi_label(points, cells)
        cluster_label(image, points, cells, distance, np.random.default_rng(0))

    cells, distance = voronoi_cells(points, shape)
    colour = image.reshape(-1, 3).astype(np.float32) / 10
    features = np.hstack([colour, np.minimum(distance, 20).reshape(-1, 1)])
    group = cluster(features, 3, np.random.default_rng(0)).reshape(shape)
    mask = group == np.bincount(group[points[:, 0], points[:, 1]]).argmax()
    _, slow = once(lambda: slow_voronoi(points, shape))
    refined, slow_too = once(lambda: slow_refine(mask, cells))
    assert np.array_equal(refine_in_cells(mask, cells), refined)
    slow += slow_too
    return [(f"labels, 1000 x 1000, {len(points)} nuclei", seconds(fast, 5), slow, 0.5)]


def metrics(truth) -> list[tuple]:
    """Scores of a prediction with errors: shifted, eroded, some missed."""
    moved = np.roll(truth, (2, 3), (0, 1))
    predicted = components((cv2.erode((moved > 0).astype(np.uint8), np.ones((3, 3)))) * 0.9, 20)
    predicted[np.isin(predicted, np.arange(1, predicted.max(), 10))] = 0
    o = overlaps(truth, predicted)
    true_aji, slow_aji_s = once(lambda: slow_aji(truth, predicted))
    true_dice, slow_dice_s = once(lambda: slow_dice(truth, predicted))
    true_hausdorff, slow_hausdorff_s = once(lambda: slow_hausdorff(truth, predicted))
    assert abs(aji(o) - true_aji) < 1e-12 and abs(object_dice(o) - true_dice) < 1e-12
    assert abs(object_hausdorff(truth, predicted, o) / true_hausdorff - 1) < 1e-5
    slow_all = slow_aji_s + slow_dice_s + slow_hausdorff_s
    return [
        ("AJI alone", seconds(lambda: aji(overlaps(truth, predicted)), 15), slow_aji_s, 0.005),
        ("all metrics", seconds(lambda: score(truth, predicted), 5), slow_all, 0.3),
    ]


def weight_map(truth) -> list[tuple]:
    """The region around points in which something is known, for a crop with 5 points."""
    points = np.random.default_rng(0).integers(0, 224, (5, 2))

    def fast():
        return distance_to(points, (224, 224)) <= 22

    assert np.array_equal(fast(), slow_known(points, (224, 224), 22))
    slow = seconds(lambda: slow_known(points, (224, 224), 22), 3)
    return [("detection weight map, 224 x 224", seconds(fast, 50), slow, None)]


def inference(image) -> list[tuple]:
    """Tiled inference of a 1000 x 1000 tile, 49 tiles of 224."""
    network = ResUNet("resnet34", 1).eval().to(memory_format=torch.channels_last)
    plain = ResUNet("resnet34", 1).eval()

    def run(net, **changes):
        return lambda: predict_image(net, image, torch.sigmoid, 224, overlap=80, **changes)

    slow = seconds(run(plain, batch_size=1), 1)
    rows = [("tiled inference, fp32, batch 8", seconds(run(network, batch_size=8), 1), slow, None)]
    half = seconds(run(network, batch_size=8, precision=torch.bfloat16), 1)
    large = lambda: predict_image(  # noqa: E731
        network, image, torch.sigmoid, 1000, overlap=0, batch_size=1, precision=torch.bfloat16
    )
    rows.append(("tiled inference, bf16, batch 8", half, slow, None))
    rows.append(("inference, bf16, one tile of 1000", seconds(large, 1), slow, None))
    return rows


def training() -> list[tuple]:
    """A training step of ResUNet-34: batch 8, 224 x 224."""
    batch, last = torch.rand(8, 3, 224, 224), torch.channels_last

    def step(layout, precision):
        torch.manual_seed(0)
        network = ResUNet("resnet34", 1).to(memory_format=layout)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=layout == last)
        x = batch.contiguous(memory_format=layout)

        def run():
            mixed = precision != torch.float32
            with torch.autocast("cpu", dtype=precision, enabled=mixed):
                out = network(x)
            loss = out.float().sigmoid().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return seconds(run, 3)

    slow, half = step(torch.contiguous_format, torch.float32), step(last, torch.bfloat16)
    return [
        ("training step, fp32, channels last, fused Adam", step(last, torch.float32), slow, None),
        ("training step, bf16, channels last, fused Adam", half, slow, None),
        *pipeline(half / 8),
    ]


def pipeline(step: float) -> list[tuple]:
    """Making a training crop of each stage, beside the `step` seconds that the network takes of it.

    In one process, of the MO training tiles, with the augmentation of the options.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = {"dataset": "MO", "data_dir": MO, "save_dir": Path(folder)}
        detection, seg = (o(**place).resolved() for o in (DetectionOptions, SegOptions))
        rng = np.random.default_rng(0)
        for sample in load_split(MO)["train"]:
            points = rng.integers(0, 1000, (30, 2))
            write_points(Path(folder) / "points" / f"{sample.name}.csv", points)
            cells = to_colours(rng.integers(0, 3, (1000, 1000)).astype(np.uint8))
            for kind in ("labels_voronoi", "labels_cluster"):
                write_png(Path(folder) / kind / f"{sample.name}.png", cells)
        samples = load_split(MO)["train"]
        crops = load_detection(detection, samples), load_seg(seg, samples, 1)
    for stage, dataset in zip((1, 2), crops, strict=True):
        took = seconds(lambda own=dataset: [own[0, i] for i in range(96)], 3) / 96
        rows.append(
            (f"a crop of stage {stage}; slow: its training step, bf16", took, step, step / 5)
        )
    return rows


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
    tiles = []
    for sample in load_split(MO)["train"]:
        truth = read_instances(sample.instances, (1000, 1000))
        tiles.append((abs(len(np.unique(truth)) - 551), sample.name, sample, truth))
    _, _, sample, truth = min(tiles, key=lambda t: t[:2])  # the tile nearest to 550 nuclei
    image = read_image(sample.image)
    print(f"{sample.name}; {args.threads} threads; torch {torch.__version__}; {platform.machine()}")
    print(f"{'':48s}{'fast':>12s}{'slow':>12s}{'ratio':>9s}   goal")
    figures = []
    for rows in (labels(image, truth), metrics(truth), weight_map(truth)):
        figures += report(rows)
    figures += report(inference(image)) + report(training())
    if args.out:
        write_json(args.out, {"tile": sample.name, "threads": args.threads, "rows": figures})


def report(rows: list[tuple]) -> list[dict]:
    """Print rows and return them for JSON."""
    for name, fast, slow, goal in rows:
        wanted = f"<= {1e3 * goal:g} ms" if goal else ""
        print(f"{name:48s}{1e3 * fast:9.2f} ms{1e3 * slow:9.0f} ms{slow / fast:8.1f}x   {wanted}")
    return [dict(name=n, fast_s=f, slow_s=s, ratio=s / f, goal_s=g) for n, f, s, g in rows]


if __name__ == "__main__":
    run_script(main)
