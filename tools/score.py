"""Score any predictions against true masks: AJI, PQ, pixel F1, and F1 of the detections.

python tools/score.py --images images --labels labels_instance --predicted OUT --out scores

Reads NAME_instances.tif and NAME_points.csv, which both predict.py write; one of them is enough.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Bounded, Parser
from code_common.errors import InputError, run_script


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = {"images": "images", "labels": "their true instance maps", "predicted": "results"}
    for name, what in folders.items():
        parser.add_argument(
            f"--{name}", type=Path, required=True, metavar="DIR", help=f"folder of the {what}"
        )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--r1",
        type=Bounded(float, 1, 1000),
        default=11,
        help="a detection nearer than this to a true point, in pixels, is right (default: 11)",
    )
    parser.add_argument(
        "--patient",
        default="TCGA-..-[^-]+",
        metavar="REGEX",
        help="what the image names of one patient have in common; intervals are drawn over patients"
        " (default: %(default)s)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

import numpy as np

from code_common.files.data_set import ImageFiles, find_images
from code_common.files.images import image_shape, read_instances, read_label
from code_common.files.reading import read_points
from code_common.files.run_folder import (
    detected_points_path,
    instances_path,
    metrics_path,
    score_table_path,
)
from code_common.files.writing import write_json, write_table
from code_common.reporting.bootstrap import intervals, mean_of, patients
from code_common.reporting.results import SHOWN, with_interval
from code_detection.labels import points_from_instances
from code_detection.metrics import count
from code_seg.metrics import score

DETECTION = "detection_"  # what the names of the scores of detections begin with


def score_image(files: ImageFiles, predicted: Path, r1: float) -> dict[str, float]:
    """The scores of what is predicted of an image: name -> value; empty if nothing is there."""
    maps = instances_path(predicted, files.name)
    large = maps.with_suffix(".ome.tif")
    maps, points = large if large.is_file() else maps, detected_points_path(predicted, files.name)
    if not maps.is_file() and not points.is_file():
        return {}
    shape, scores = image_shape(files.image), {}
    truth = read_instances(files.instances, shape, files.image)
    if maps.is_file():
        scores |= score(truth, read_label(maps, shape))
    if points.is_file():
        counts = count(read_points(points, shape), points_from_instances(truth), r1)
        scores |= {DETECTION + name: value for name, value in counts.scores().items()}
    return scores


def some(names: Sequence[str]) -> str:
    """How many names there are, and the first of them."""
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def main(arguments: argparse.Namespace) -> None:
    """Score every image with a true map. Writes per_image.csv and metrics.json: the means over
    the images and their intervals. Raises InputError where nothing can be scored.
    """
    images = find_images(arguments.images, None, arguments.labels)
    known = [files for files in images if files.instances]
    found = {files.name: score_image(files, arguments.predicted, arguments.r1) for files in known}
    scores = {name: values for name, values in found.items() if values}
    if not scores:
        raise InputError(
            f"{arguments.predicted}: nothing to score; expected NAME_instances.tif or "
            f"NAME_points.csv of the {len(known)} images with a true map in {arguments.labels}"
        )
    columns = {column for values in scores.values() for column in values}
    partly = [name for name, values in scores.items() if set(values) < columns]
    if partly:
        raise InputError(
            f"{arguments.predicted}: images with a map or with points alone, others have both: "
            f"{some(partly)}"
        )
    rows = list(scores.values())
    means = mean_of(rows)(np.arange(len(rows)))
    groups = patients(list(scores), arguments.patient)
    drawn = intervals(groups, mean_of(rows))
    table = [[name, *(f"{v:.6g}" for v in values.values())] for name, values in scores.items()]
    write_table(score_table_path(arguments.out), ["image", *rows[0]], table)
    summary = {"mean": means, "interval": drawn, "patients": len(set(groups)), "images": scores}
    write_json(metrics_path(arguments.out), summary)
    print(f"{len(rows)} of {len(images)} images scored; see {arguments.out}")
    without = {
        "without a true map": [files.name for files in images if not files.instances],
        "without a prediction": [name for name, values in found.items() if not values],
    }
    for why, names in without.items():
        if names:
            print(f"{why}: {some(names)}")
    for name in (*SHOWN, DETECTION + "f1"):
        if name in means:
            print(f"{name:12s}  {with_interval(means[name], drawn.get(name))}")


if __name__ == "__main__":
    run_script(lambda: main(arguments))
