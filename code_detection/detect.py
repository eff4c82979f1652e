"""Detect the nuclei of a data set's images with a round's checkpoint: points, maps, overlays."""

from pathlib import Path

import numpy as np

from code_common.config import fingerprint
from code_common.detection_scores import DetectionCounts, count, match
from code_common.errors import InputError
from code_common.files.contents import content_hash
from code_common.files.data_set import ImageFiles
from code_common.files.images import read_image
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    detected_points_path,
    overlay_path,
    prob_path,
    remove_scores,
    round_of,
    selection_path,
)
from code_common.files.writing import write_png, write_prob, write_table
from code_common.inference.detections import detect
from code_common.inference.shards import ALL, DoneFiles, process_shard
from code_common.inference.tiling import predict_prob
from code_common.launch import choose_device, tiling_of
from code_common.learning.checkpoints import load_state, network_of, scores_of
from code_common.learning.hardware import choose_processes
from code_common.reporting.drawing import BLUE, GREEN, ORANGE, mark
from code_detection.dataset import true_points
from code_detection.options import Options


def chosen_round(save_dir: Path) -> int:
    """The round whose detections a run took; 0, the initial one, where it has not chosen yet."""
    path = selection_path(save_dir)
    if not path.is_file():
        return 0
    return round_of(read_json(path, {"checkpoint": str})["checkpoint"])


def threshold_of(options: Options, state: dict, path: Path) -> float:
    """The threshold of detections: the options', or with --auto-threshold that of a checkpoint.

    A checkpoint that was chosen without validation images has none, nor has last.pt; it takes the
    options'. Raises InputError, which names the checkpoint's `path`, where it holds something else.
    """
    if not options.auto_threshold or "scores" not in state:
        return options.threshold
    threshold = scores_of(state, path).get("threshold", options.threshold)
    if not 0 <= threshold <= 1:
        raise InputError(f"{path}: holds the threshold {threshold:g}, expected one from 0 to 1")
    return threshold


def draw_detections(
    image: np.ndarray, detected: np.ndarray, truth: np.ndarray | None, r1: float
) -> np.ndarray:
    """Overlay [H, W, 3]: green circles are right, orange crosses wrong, blue squares missed."""
    if truth is None:
        return mark(image, detected, "circle", GREEN)
    i, j = match(detected, truth, r1)
    image = mark(image, np.delete(truth, j, axis=0), "square", BLUE)
    image = mark(image, np.delete(detected, i, axis=0), "cross", ORANGE)
    return mark(image, detected[i], "circle", GREEN)


def detect_images(
    options: Options,
    image_files: list[ImageFiles],
    checkpoint: Path,
    out: Path,
    overlays: Path | None = None,
    shard: str = ALL,
) -> dict[str, DetectionCounts | None]:
    """Detect the nuclei of each image; write NAME_prob.png (65535 is 1) and NAME_points.csv.

    Pictures go into the folder `overlays`. Images that are done, and those of another shard, are
    left alone. Returns the counts of all that are done by name, None where no point is known.
    """
    device = choose_device(options)
    state, tiling = load_state(checkpoint), tiling_of(options, device)
    network = network_of(state, checkpoint, device, "detection")
    rule = threshold_of(options, state, checkpoint), options.min_area, options.max_area
    key = fingerprint(content_hash(checkpoint), tiling.key(), rule, options.r1, bool(overlays))
    by_name = {files.name: files for files in image_files}

    def work(name: str) -> tuple[list[Path], dict]:
        if overlays:
            remove_scores(overlays)  # an image that stops this leaves no scores of other results
        image = read_image(by_name[name].image)
        prob = predict_prob(network, image, tiling)
        points = detect(prob, *rule)
        written = [detected_points_path(out, name), prob_path(out, name)]
        rows = [(row, col, f"{prob[row, col]:.4f}") for row, col in points.tolist()]
        write_table(written[0], ("row", "col", "prob"), rows)
        write_prob(written[1], prob)
        truth = true_points(by_name[name], image.shape[:2])
        if overlays:
            written.append(overlay_path(overlays, name))
            write_png(written[-1], draw_detections(image, points, truth, options.r1))
        counts = None if truth is None else count(points, truth, options.r1).as_json()
        return written, {"counts": counts}

    inputs = {name: (f.image, f.instances, f.points) for name, f in by_name.items()}
    done_files = DoneFiles(out, key, {"counts": None})
    done = process_shard(done_files, inputs, work, shard, "detecting", choose_processes(device))
    counts = {name: value["counts"] for name, value in done.items()}
    return {n: c if c is None else DetectionCounts.from_json(c) for n, c in counts.items()}
