"""Prepare stage 1: all points of each image, the partial points, the colour statistics."""

import sys
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import read_image, read_instances, read_label
from code_common.files.writing import write_json, write_points
from code_common.learning.colours import ColourStatistics
from code_detection.labels import points_from_instances, points_from_map, sample_points
from code_detection.options import Options


def all_points(sample: Sample, shape: tuple[int, int]) -> np.ndarray | None:
    """All points [N, 2] known of an image: of its point label, else of its instance map."""
    if sample.points:
        return points_from_map(read_label(sample.points, shape))
    if sample.instances:
        return points_from_instances(read_instances(sample.instances, shape))
    return None


def prepare(options: Options) -> str:
    """Read every image once, draw the partial points and write what training needs.

    Writes under save_dir: points/NAME.csv, the annotated points of the training images;
    val_points/NAME.csv, those that choose the checkpoint; colours.json. Raises InputError where
    a training image has no points.
    """
    split = load_split(options.data_dir)
    out = options.save_dir
    total = annotated = val_total = 0
    colours = ColourStatistics()
    for part in ("train", "val", "test"):
        for index, sample in enumerate(split[part]):
            image = read_image(sample.image)
            points = all_points(sample, image.shape[:2])
            if part == "test":
                continue
            if part == "train":
                if points is None or len(points) == 0:
                    raise InputError(
                        f"{sample.image}: no annotated point; expected "
                        f"labels_instance/{sample.name}_label.png or "
                        f"labels_point/{sample.name}_label_point.png with at least one"
                    )
                colours.add(image)
            if points is None:
                continue
            rng = np.random.default_rng((options.seed(0), part == "val", index))
            partial = sample_points(points, options.ratio, rng) if len(points) else points
            if part == "val" and options.val_points == "all":
                partial = points
            note = f"{len(partial)} of {len(points)} points, seed {options.seed(0)}"
            folder = "points" if part == "train" else "val_points"
            write_points(out / folder / f"{sample.name}.csv", partial, note)
            if part == "train":
                total, annotated = total + len(points), annotated + len(partial)
            else:
                val_total += len(partial)
    write_json(out / "colours.json", colours.result())
    return (
        f"{annotated} of {total} points annotated in {len(split['train'])} training images, "
        f"{val_total} points in {len(split['val'])} validation images"
    )


if __name__ == "__main__":
    run_script(lambda: print(prepare(parse(Options, __doc__))))
