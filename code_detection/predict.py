"""Detect the nuclei of any images with a trained run: points as CSV and GeoJSON, overlays."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_detection.options import DetectionPredictOptions

if __name__ == "__main__":
    options = read_command_line(DetectionPredictOptions, __doc__)

from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from code_common.errors import InputError
from code_common.files.geojson import Features, point_feature
from code_common.files.reading import read_table
from code_common.files.run_folder import detected_points_path
from code_common.files.writing import whole_file, write_png, write_table
from code_common.inference.image_files import find_slides
from code_common.inference.prediction import (
    PAGE,
    detect_slide,
    predict_all,
    result_key,
    wanted_tiles,
)
from code_common.inference.shards import DoneFiles
from code_common.inference.slides import Slide, reduced
from code_common.inference.trained_run import TrainedStage, load_trained_run
from code_common.launch import choose_device, run, tiling_of
from code_common.learning import distributed
from code_common.learning.hardware import choose_processes
from code_common.learning.stopwatch import Lap
from code_common.reporting.drawing import GREEN, mark
from code_detection.annotate_page import Found, write_page

ENDINGS = ("points.csv", "points.geojson", "points.png", "candidates.csv")  # of an image's results
NEARLY = 0.5  # share of the threshold over which a place is a candidate


def in_file(slide: Slide, points: np.ndarray) -> np.ndarray:
    """Points [N, 2] in pixels of the file, counted from its corner."""
    return (points + 0.5) * slide.scale  # the middle of a pixel


def write_points(path: Path, places: np.ndarray, probs: np.ndarray) -> None:
    """Write places [N, 2] of `in_file` and their probability [N] as a table: pixels of the file."""
    rows = [
        (round(r - 0.5), round(c - 0.5), f"{p:.4f}")
        for (r, c), p in zip(places.tolist(), probs.tolist(), strict=True)
    ]
    write_table(path, ("row", "col", "prob"), rows)


def write_geojson(path: Path, places: np.ndarray, probs: np.ndarray) -> None:
    """Write places [N, 2] of `in_file` and their probability [N] as GeoJSON."""
    with whole_file(path) as file:
        features = Features(file)
        for (r, c), p in zip(places.tolist(), probs.tolist(), strict=True):
            features.add(point_feature(c, r, round(p, 4)))
        features.end()


def candidates_path(out: Path, name: str) -> Path:
    """Places of an image that nearly are detections, in a folder of results."""
    return out / f"{name}_candidates.csv"


def less_strict(stage: TrainedStage) -> TrainedStage:
    """A detector whose threshold is the share NEARLY of the given one."""
    settings = stage.settings | {"threshold": NEARLY * stage.settings["threshold"]}
    return replace(stage, settings=settings)


def found_in(out: Path, name: str) -> Found:
    """The detections of an image that is done and, where they were written, its candidates."""
    table = read_table(detected_points_path(out, name), "row", "col", "prob")
    nearly = {column: np.zeros(0) for column in table}
    if candidates_path(out, name).is_file():
        nearly = read_table(candidates_path(out, name), *table)
    places = [np.stack([own["row"], own["col"]], 1) for own in (table, nearly)]
    return Found(places[0], table["prob"], places[1], nearly["prob"])


def write_page_of_done(options: DetectionPredictOptions, page: Path, key: str) -> list[str]:
    """Write the page of the images that are done; returns a line for each that is not in it."""
    done, paths = DoneFiles(options.out, key), find_slides(list(options.images))
    images = {
        name: files[0] for name, files in sorted(paths.items()) if done.get(name, files) is not None
    }
    if not images:
        return []
    if len(images) < len(paths):
        print(f"{page}: {len(paths) - len(images)} images that are not done are not in it")
    earlier = sum(not candidates_path(options.out, name).is_file() for name in images)
    if earlier:
        print(
            f"{page}: {earlier} images were done without --annotate, so that no places just below "
            "the threshold are marked in them"
        )
    try:
        return write_page(page, images, {name: found_in(options.out, name) for name in images})
    except InputError as error:
        return [str(error)]


def predict(options: DetectionPredictOptions) -> str:
    """Write NAME_points.csv, NAME_points.geojson and NAME_points.png of each image.

    With --annotate also NAME_candidates.csv and, of all images that are done, annotate.html.
    """
    device = choose_device(options)
    stage = load_trained_run(options.model, device).get("detection")
    if stage is None:
        raise InputError(f"{options.model}: holds no detector")
    tiling = tiling_of(options, device)
    key = result_key(options, [stage], tiling)

    def work(
        name: str, slide: Slide, folder: Path, key: str, lap: Lap
    ) -> tuple[list[Path], dict, list[str]]:
        wanted = wanted_tiles(slide, options.tissue, options.tile)
        points, probs = detect_slide(stage, slide, folder, key, tiling, wanted)
        lap("detector")
        files = [options.out / f"{name}_{ending}" for ending in ENDINGS[:3]]
        write_points(files[0], in_file(slide, points), probs)
        write_geojson(files[1], in_file(slide, points), probs)
        picture, _, by = reduced(slide)
        write_png(files[2], mark(picture, points // by, "circle", GREEN, max(1, 5 // by)))
        candidates = candidates_path(options.out, name)
        if options.annotate:
            # The probability map is there already: no network runs.
            places, nearly = detect_slide(less_strict(stage), slide, folder, key, tiling, wanted)
            far = KDTree(points).query(places)[0] > stage.settings["r1"]
            write_points(candidates, in_file(slide, places[far]), nearly[far])
            files.append(candidates)
        lap("files")
        return files, {"nuclei": len(points)}, []

    message, errors = "", []
    try:
        message = predict_all(options, key, ["nuclei"], ENDINGS, work, choose_processes(device))[0]
    except InputError as error:
        errors.append(str(error))
    if options.annotate and distributed.is_main():
        page = options.out / PAGE
        errors += write_page_of_done(options, page, key)
        message += f"; correct them in {page}" if page.is_file() else ""
    if errors:
        raise InputError("\nerror: ".join(errors))
    return message


if __name__ == "__main__":
    run(predict, options)
