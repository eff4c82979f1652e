"""Prepare stage 1: all points of each image, the partial points, the colour statistics."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_detection.options import Options, PrepareOptions

if __name__ == "__main__":
    options = read_command_line(PrepareOptions, __doc__)

from functools import partial

import numpy as np

from code_common.errors import InputError, run_script
from code_common.files.data_set import load_split, remove_others
from code_common.files.images import read_image
from code_common.files.run_folder import colours_path, points_path, val_points_path
from code_common.files.writing import write_json, write_points
from code_common.learning.colours import ColourStatistics
from code_common.options import Purpose
from code_common.runs.steps import do_alone
from code_detection.dataset import all_points, true_points
from code_detection.labels import sample_points


def prepare(options: Options) -> str:
    """Read every image once, draw the partial points and write what training needs.

    Writes under save_dir: points/NAME.csv, the annotated points of the training images;
    val_points/NAME.csv, those that choose the checkpoint; colours.json. Removes the points that an
    earlier call left of other images. Raises InputError where a training image has no points.
    """
    split, out = load_split(options.data_dir), options.save_dir
    seed = options.seed(Purpose.DRAW)
    total = annotated = val_total = 0
    written: dict[str, list[str]] = {"train": [], "val": []}
    colours = ColourStatistics()
    for part in ("train", "val", "test"):
        for index, files in enumerate(split[part]):
            image = read_image(files.image)
            points_of = all_points if part == "train" else true_points
            points = points_of(files, image.shape[:2])
            if part == "test":
                continue  # read all the same: a broken file is found now, not after the training
            if part == "train":
                if points is None or len(points) == 0:
                    raise InputError(
                        f"{files.image}: no annotated point; expected "
                        f"labels_instance/{files.name}_label.png or "
                        f"labels_point/{files.name}_label_point.png with at least one"
                    )
                colours.add(image)
            if points is None:
                continue
            rng = np.random.default_rng((seed, part == "val", index))
            drawn = sample_points(points, options.ratio, rng) if len(points) else points
            if part == "val" and options.val_points == "all":
                drawn = points
            note = f"{len(drawn)} of {len(points)} points, seed {seed}"
            path_of = points_path if part == "train" else val_points_path
            write_points(path_of(out, files.name), drawn, note)
            written[part].append(files.name)
            if part == "train":
                total, annotated = total + len(points), annotated + len(drawn)
            else:
                val_total += len(drawn)
    remove_others(partial(points_path, out), options.data_dir, written["train"])
    remove_others(partial(val_points_path, out), options.data_dir, written["val"])
    write_json(colours_path(out), colours.result())
    return (
        f"{annotated} of {total} points annotated in {len(split['train'])} training images, "
        f"{val_total} points in {len(written['val'])} of {len(split['val'])} validation images"
    )


if __name__ == "__main__":
    print(run_script(lambda: do_alone(prepare, options)))
