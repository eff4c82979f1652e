"""Detect the nuclei of any images with a trained run: points as CSV and GeoJSON, overlays."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_common.options import PredictOptions

if __name__ == "__main__":
    options = read_command_line(PredictOptions, __doc__)

import numpy as np

from code_common.errors import InputError
from code_common.files.geojson import Features, point_feature
from code_common.files.writing import whole_file, write_png, write_table
from code_common.inference.prediction import (
    detect_slide,
    predict_all,
    result_key,
    wanted_tiles,
)
from code_common.inference.slides import Slide, reduced
from code_common.inference.trained_run import load_trained_run
from code_common.launch import choose_device, run, tiling_of
from code_common.reporting.drawing import GREEN, mark


def write_points(
    table: Path, outlines: Path, slide: Slide, points: np.ndarray, probs: np.ndarray
) -> None:
    """Write points [N, 2] of a slide and their probability [N] as a CSV table and as GeoJSON.

    row and col are pixels of the file, as x and y of the GeoJSON are, which counts from the corner.
    """
    places = (points + 0.5) * slide.scale  # the middle of a pixel, in pixels of the file
    detections = [
        (*place, prob) for place, prob in zip(places.tolist(), probs.tolist(), strict=True)
    ]
    rows = [(round(r - 0.5), round(c - 0.5), f"{p:.4f}") for r, c, p in detections]
    write_table(table, ("row", "col", "prob"), rows)
    with whole_file(outlines) as file:
        features = Features(file)
        for r, c, p in detections:
            features.add(point_feature(c, r, round(p, 4)))
        features.end()


def predict(options: PredictOptions) -> str:
    """Write NAME_points.csv, NAME_points.geojson and NAME_points.png of each image."""
    device = choose_device(options)
    stage = load_trained_run(options.model, device).get("detection")
    if stage is None:
        raise InputError(f"{options.model}: holds no detector")
    tiling = tiling_of(options, device)

    def work(name: str, slide: Slide, folder: Path, key: str) -> tuple[list[Path], dict]:
        wanted = wanted_tiles(slide, options.tissue, options.tile)
        points, probs = detect_slide(stage, slide, folder, key, tiling, wanted)
        files = [options.out / f"{name}_points.{kind}" for kind in ("csv", "geojson", "png")]
        write_points(files[0], files[1], slide, points, probs)
        picture, _, by = reduced(slide)
        write_png(files[2], mark(picture, points // by, "circle", GREEN, max(1, 5 // by)))
        return files, {"nuclei": len(points)}

    return predict_all(options, result_key(options, [stage], tiling), ["nuclei"], work)[0]


if __name__ == "__main__":
    run(predict, options)
