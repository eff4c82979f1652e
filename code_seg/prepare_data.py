"""Prepare stage 2: merge annotated and detected points, make the Voronoi and cluster labels."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import Options, PrepareOptions

if __name__ == "__main__":
    options = read_command_line(PrepareOptions, __doc__)

from functools import partial

import numpy as np

from code_common.errors import run_script
from code_common.files.data_set import ImageFiles, load_split, remove_others
from code_common.files.images import read_image, read_instances
from code_common.files.run_folder import (
    LABELS,
    colours_path,
    label_errors_path,
    label_path,
    label_picture_path,
    points_path,
)
from code_common.files.writing import write_json, write_png, write_points
from code_common.learning.colours import ColourStatistics
from code_common.reporting.drawing import BLUE, mark
from code_common.runs.steps import do_alone
from code_seg.labels import label_errors, to_colours
from code_seg.overlays import label_overlay
from code_seg.points import merge_points, read_annotated, read_detections
from code_seg.preparation import make_labels, write_label_errors


def merged_points(
    options: Options, files: ImageFiles, shape: tuple[int, int], part: str
) -> np.ndarray:
    """Merged points [N, 2] of an image: annotated ones, where there are any, and detections."""
    annotated = np.zeros((0, 2), np.int64)
    if part == "train":
        annotated = read_annotated(options.detection_dir(), files.name, shape)
    detected = read_detections(options.detection_dir(), files.name, shape)
    return merge_points(annotated, detected, options.merge_radius)


def prepare(options: Options) -> str:
    """Write points/, labels_voronoi/ and labels_cluster/ of the training and validation images.

    pictures/labels/ shows both labels over each image; label_errors.json says how wrong they are
    where there are masks to tell; colours.json has mean and deviation of the training images.
    Removes what an earlier call left of other images.
    """
    split, out = load_split(options.data_dir), options.save_dir
    errors: dict[str, dict] = {}
    total, colours = 0, ColourStatistics()
    for part in ("train", "val"):
        for index, files in enumerate(split[part]):
            image = read_image(files.image)
            shape = image.shape[:2]
            points = merged_points(options, files, shape, part)
            voronoi, clusters = make_labels(options, image, points, index)
            write_points(points_path(out, files.name), points)
            for folder, label in zip(LABELS, (voronoi, clusters), strict=True):
                write_png(label_path(out, folder, files.name), to_colours(label))
            panels = [
                mark(image, points, "circle", BLUE, 3),
                label_overlay(image, voronoi, thin=True),
                label_overlay(image, clusters),
            ]
            write_png(label_picture_path(out, "labels", files.name), np.hstack(panels))
            if files.instances:
                truth = read_instances(files.instances, shape, files.image)
                errors[files.name] = {"set": part, **label_errors(voronoi, clusters, truth)}
            if part == "train":
                colours.add(image)
                total += len(points)
    seen = [files.name for part in ("train", "val") for files in split[part]]
    paths = [partial(label_path, out, folder) for folder in LABELS]
    paths += [partial(points_path, out), partial(label_picture_path, out, "labels")]
    for path_of in paths:
        remove_others(path_of, options.data_dir, seen)
    message = f"{total} points in {len(split['train'])} training images"
    write_json(colours_path(out), colours.result())
    if means := write_label_errors(label_errors_path(out), errors):
        message += (
            f"; labels: {means['edge_on_nuclei']:.1%} of edges on nuclei, cluster label "
            f"{means['cluster_wrong']:.1%} wrong, {means['nuclei_found']:.1%} of nuclei found"
        )
    return message


if __name__ == "__main__":
    print(run_script(lambda: do_alone(prepare, options)))
