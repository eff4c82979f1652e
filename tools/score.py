"""Score any predictions against true masks: AJI, PQ, pixel F1, and F1 of the detections.

python tools/score.py --images images --labels labels_instance --predicted OUT --out scores

Reads NAME_instances.tif, as code_seg/predict.py writes it, or NAME_points.csv, as
code_detection/predict.py does, or both.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Bounded, Parser
from code_common.errors import InputError, run_script
from code_common.files.layout import TCGA_PATIENT


def pattern(text: str) -> str:
    """The `type` of a regular expression of `Parser`."""
    try:
        re.compile(text)
    except re.error as error:
        message = f"must be a regular expression, not {text} ({error})"
        raise argparse.ArgumentTypeError(message) from None
    return text


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = {"images": "images", "labels": "true instance maps", "predicted": "results"}
    for name, what in folders.items():
        parser.add_argument(
            f"--{name}", type=Path, required=True, metavar="DIR", help=f"folder of the {what}"
        )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--r1",
        type=Bounded(float, 1, 1000),
        default=11,
        help="a detection or the centre of a nucleus is right where it is at most this far from a"
        " true one, in pixels (default: 11)",
    )
    parser.add_argument(
        "--patient",
        type=pattern,
        default=TCGA_PATIENT,
        metavar="REGEX",
        help="what the image names of one patient have in common; intervals are drawn over patients"
        " (default: %(default)s)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

import numpy as np

from code_common.annotations.text import some_names, told_of_masks
from code_common.arrays import points_from_instances
from code_common.detection_scores import DetectionCounts, add, count
from code_common.files.contents import refuse_in_run
from code_common.files.data_set import ImageFiles, find_images, masks_beside
from code_common.files.images import image_shape, read_instances
from code_common.files.reading import read_json, read_points
from code_common.files.run_folder import (
    detected_points_path,
    instances_path,
    metrics_path,
    remove_scores,
    score_table_path,
)
from code_common.files.writing import write_json, write_table
from code_common.reporting.bootstrap import intervals, patients, told_alone
from code_common.reporting.results import SCORED, SHOWN, with_interval
from code_seg.metrics import over_images, score

DETECTION = "detection_"  # what the names of the scores of detections begin with


class Scored(NamedTuple):
    """What an image's prediction is worth; None for what is not predicted."""

    nuclei: dict[str, float] | None  # scores of its instance map
    points: DetectionCounts | None

    def values(self) -> dict[str, float]:
        """All scores: name -> value."""
        return (self.nuclei or {}) | (detection_scores([self.points]) if self.points else {})


def detection_scores(counts: list[DetectionCounts]) -> dict[str, float]:
    """The scores of the detections in several images together: name -> value."""
    return {DETECTION + name: value for name, value in add(counts).scores().items()}


def score_image(files: ImageFiles, predicted: Path, r1: float) -> Scored | None:
    """Score what is predicted of an image; None if nothing is there. Raises InputError."""
    maps = instances_path(predicted, files.name)
    large = maps.with_suffix(".ome.tif")
    maps, points = large if large.is_file() else maps, detected_points_path(predicted, files.name)
    if not maps.is_file() and not points.is_file():
        return None
    shape, nuclei, counts = image_shape(files.image), None, None
    truth = read_instances(files.instances, shape, files.image)
    if maps.is_file():
        nuclei = score(truth, read_instances(maps, shape, predicted=True), r1)
    if points.is_file():
        counts = count(read_points(points, shape), points_from_instances(truth), r1)
    return Scored(nuclei, counts)


def summarise(scored: Sequence[Scored], groups: Sequence[str]) -> dict[str, dict]:
    """Scores of all images: the means of those of maps, the detections pooled, their intervals.

    groups: the patient of each image.
    """
    nuclei = [image.nuclei for image in scored if image.nuclei]
    counts = [image.points for image in scored if image.points]
    mean_scores = over_images(nuclei) if nuclei else lambda drawn: {}

    def pooled_scores(drawn: np.ndarray) -> dict[str, float]:
        return detection_scores([counts[k] for k in drawn]) if counts else {}

    every = np.arange(len(scored))
    interval = intervals(groups, lambda drawn: mean_scores(drawn) | pooled_scores(drawn))
    return {"mean": mean_scores(every), "pooled": pooled_scores(every), "interval": interval}


def write_scores(
    out: Path, scored: dict[str, Scored], groups: Sequence[str], not_scored: dict[str, list[str]]
) -> dict[str, dict]:
    """Write per_image.csv and metrics.json; returns what `summarise` gives.

    groups: the patient of each image; not_scored: why -> names of the other images.
    """
    values = {name: image.values() for name, image in scored.items()}
    table = [[name, *(f"{v:.6g}" for v in row.values())] for name, row in values.items()]
    write_table(score_table_path(out), ["image", *next(iter(values.values()))], table)
    summary = summarise(list(scored.values()), groups)
    counts = {"patients": len(set(groups)), "scored": len(scored), "not_scored": not_scored}
    write_json(metrics_path(out), {**summary, **counts, "images": values})
    return summary


def refuse_other_scores(out: Path) -> None:
    """Raise InputError where a folder holds files with the names of scores that are something else.

    An earlier call's own are replaced.
    """
    path, table = metrics_path(out), score_table_path(out)
    try:
        if path.exists():
            read_json(path, SCORED)
        if table.exists() and not table.read_bytes().startswith(b"image,"):
            raise InputError(f"{table}: not a table of scores")
    except (OSError, InputError) as error:
        raise InputError(f"{error}; it would be lost: give another --out") from None


def check_kinds(scored: dict[str, Scored], predicted: Path) -> None:
    """Raise InputError where some images have a map or points alone, and others have both."""
    kinds = {name: set(image.values()) for name, image in scored.items()}
    every = set().union(*kinds.values())
    partly = [name for name, columns in kinds.items() if columns < every]
    if partly:
        raise InputError(
            f"{predicted}: expected a map of each image, points of each, or both of each; these "
            f"have one alone: {some_names(partly)}"
        )


def tell(summary: dict[str, dict], not_scored: dict[str, list[str]]) -> None:
    """Print which images are not scored, and the main scores with their intervals."""
    for why, names in not_scored.items():
        if names:
            print(f"{why}: {some_names(names)}")
    scores = summary["mean"] | summary["pooled"]
    for name in (*SHOWN, DETECTION + "f1"):
        if name in scores:
            print(f"{name:12s}  {with_interval(scores[name], summary['interval'].get(name))}")


def main(arguments: argparse.Namespace) -> None:
    """Score every image with a true map. Writes per_image.csv and metrics.json: the scores over
    all images and their intervals. Raises InputError where nothing can be scored and, once the
    others are, for each image that cannot be.
    """
    refuse_in_run(arguments.out, "--out")
    for folder in (arguments.labels, arguments.predicted):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    images = find_images(arguments.images, None, arguments.labels)
    if masks := masks_beside(arguments.images):
        print(told_of_masks(masks))
    known = [files for files in images if files.instances]
    patients([files.name for files in known], arguments.patient)  # an error comes before the work
    refuse_other_scores(arguments.out)
    remove_scores(arguments.out)
    errors: dict[str, str] = {}
    found: dict[str, Scored | None] = {}
    for files in known:
        try:
            found[files.name] = score_image(files, arguments.predicted, arguments.r1)
        except InputError as error:
            errors[files.name] = str(error)
    scored = {name: image for name, image in found.items() if image}
    if not scored and not errors:
        raise InputError(
            f"{arguments.predicted}: nothing to score; expected NAME_instances.tif or "
            f"NAME_points.csv of the {len(known)} images with a true map in {arguments.labels}"
        )
    try:
        check_kinds(scored, arguments.predicted)
    except InputError as error:
        raise InputError("\nerror: ".join([*errors.values(), str(error)])) from None
    not_scored = {
        "without a true map": [files.name for files in images if not files.instances],
        "without a prediction": [name for name, image in found.items() if not image],
        "not readable": list(errors),
    }
    if scored:
        groups = patients(list(scored), arguments.patient)
        summary = write_scores(arguments.out, scored, groups, not_scored)
        alone = told_alone(list(scored), arguments.patient)
        print(f"{len(scored)} of {len(images)} images scored{alone}; see {arguments.out}")
        tell(summary, not_scored)
    if errors:
        raise InputError("\nerror: ".join(errors.values()))


if __name__ == "__main__":
    run_script(lambda: main(arguments))
