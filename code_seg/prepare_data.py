"""Prepare stage 2: merge annotated and detected points, make the Voronoi and cluster labels."""

import sys
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import read_image, read_instances, read_points
from code_common.files.writing import write_json, write_png, write_points
from code_common.learning.colours import ColourStatistics
from code_common.reporting.drawing import BLUE, GREEN, ORANGE, mark, tint
from code_seg.labels import (
    BACKGROUND,
    NUCLEUS,
    cluster_label,
    label_errors,
    merge_points,
    to_colours,
    voronoi_cells,
    voronoi_label,
)
from code_seg.options import COLOUR_SCALE, Options


def detections_path(detection_dir: Path, name: str) -> Path:
    """The file in which stage 1 leaves the detections of an image."""
    return detection_dir / "detections" / f"{name}_points.csv"


def points_of(options: Options, sample: Sample, shape: tuple[int, int], part: str) -> np.ndarray:
    """Merged points [N, 2] of an image: annotated ones, where there are any, and detections."""
    annotated = np.zeros((0, 2), np.int64)
    if part == "train":
        annotated = annotated_points(options, sample.name, shape)
    detected = _read_of_stage_1(detections_path(options.detection_dir(), sample.name), shape)
    return merge_points(annotated, detected, options.merge_radius)


def annotated_points(options: Options, name: str, shape: tuple[int, int]) -> np.ndarray:
    """The partial points [N, 2] of a training image, as stage 1 drew them."""
    return _read_of_stage_1(options.detection_dir() / "points" / f"{name}.csv", shape)


def _read_of_stage_1(path: Path, shape: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file; run stage 1 first (code_detection/main.py)")
    return read_points(path, shape)


def write_errors(path: Path, errors: dict[str, dict]) -> dict[str, float]:
    """Write the label errors of images with masks and their means over the training images.

    errors: image -> 'set' (train or val) and shares. Returns the means; without a training image
    there are none, and no file.
    """
    train = [e for e in errors.values() if e["set"] == "train"]
    if not train:
        return {}
    means = {k: float(np.mean([e[k] for e in train])) for k in train[0] if k != "set"}
    write_json(path, {"mean_train": means, "images": errors})
    return means


def make_labels(
    options: Options, image: np.ndarray, points: np.ndarray, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi label and cluster label [H, W] of an image; `index` seeds the clustering."""
    cells, distance = voronoi_cells(points, image.shape[:2])
    seen = options.cluster_colours
    clusters = cluster_label(
        image[..., :1] if seen == "red" else image,
        points,
        cells,
        distance,
        np.random.default_rng((options.seed(0), index)),
        options.clusters,
        options.colour_scale or COLOUR_SCALE[seen],
        options.distance_limit,
    )
    return voronoi_label(points, cells), clusters


def picture(image: np.ndarray, label: np.ndarray, thin: bool = False) -> np.ndarray:
    """A label over its image: orange background, green nuclei, the ignored as it is.

    `thin`: the label is of lines and dots (the Voronoi label), which need strong colours.
    """
    background = tint(image, label == BACKGROUND, ORANGE, 1.0 if thin else 0.5)
    return tint(background, label == NUCLEUS, GREEN, 1.0 if thin else 0.6)


def prepare(options: Options) -> str:
    """Write points/, labels_voronoi/ and labels_cluster/ of the training and validation images.

    pictures/labels/ shows both labels over each image; label_errors.json says how wrong they are
    where there are masks to tell; colours.json has mean and deviation of the training images.
    """
    split, out = load_split(options.data_dir), options.save_dir
    errors: dict[str, dict] = {}
    total, colours = 0, ColourStatistics()
    for part in ("train", "val"):
        for index, sample in enumerate(split[part]):
            image = read_image(sample.image)
            shape = image.shape[:2]
            points = points_of(options, sample, shape, part)
            voronoi, clusters = make_labels(options, image, points, index)
            write_points(out / "points" / f"{sample.name}.csv", points)
            write_png(out / "labels_voronoi" / f"{sample.name}.png", to_colours(voronoi))
            write_png(out / "labels_cluster" / f"{sample.name}.png", to_colours(clusters))
            panels = [mark(image, points, "circle", BLUE, 3)]
            panels += [picture(image, voronoi, thin=True), picture(image, clusters)]
            write_png(out / "pictures" / "labels" / f"{sample.name}.png", np.hstack(panels))
            if sample.instances:
                truth = read_instances(sample.instances, shape)
                errors[sample.name] = {"set": part, **label_errors(voronoi, clusters, truth)}
            if part == "train":
                colours.add(image)
                total += len(points)
    told = f"{total} points in {len(split['train'])} training images"
    write_json(out / "colours.json", colours.result())
    if means := write_errors(out / "label_errors.json", errors):
        told += (
            f"; labels: {means['edge_on_nuclei']:.1%} of edges on nuclei, cluster label "
            f"{means['cluster_wrong']:.1%} wrong, {means['nuclei_found']:.1%} of nuclei found"
        )
    return told


if __name__ == "__main__":
    run_script(lambda: print(prepare(parse(Options, __doc__))))
