"""Which part loses most? Scores with true masks, points or labels in place of a run's own.

python code_seg/oracles.py --dataset MO --ratio 0.1

Looks at the validation images of a finished run, whose options it takes, and writes oracles.json.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import OracleOptions

if __name__ == "__main__":
    options = read_command_line(OracleOptions, __doc__)

import numpy as np
from scipy import ndimage

from code_common.annotations.labels import counted
from code_common.arrays import distance_transform
from code_common.errors import InputError
from code_common.files.contents import refuse_unfinished
from code_common.files.data_set import load_split
from code_common.files.images import read_image, read_instances
from code_common.files.run_folder import oracles_path
from code_common.files.writing import write_json
from code_common.launch import choose_device, run, tiling_of
from code_common.learning.checkpoints import load_network
from code_common.reporting.bootstrap import mean_of
from code_common.reporting.results import SHOWN
from code_common.runs.same_run import refuse_other_run
from code_seg.evaluate import make_instances
from code_seg.labels import NUCLEUS, label_errors, voronoi_cells
from code_seg.magnify import predict_nuclei
from code_seg.metrics import over_images, score
from code_seg.points import read_detections
from code_seg.preparation import make_labels
from code_seg.selection import read_selection


def true_points(truth: np.ndarray) -> np.ndarray:
    """The innermost pixel [N, 2] of each nucleus of an instance map [H, W]."""
    edge = (ndimage.minimum_filter(truth, 3) != truth) | (ndimage.maximum_filter(truth, 3) != truth)
    depth = distance_transform((~edge & (truth > 0)).astype(np.uint8)) + (truth > 0)
    ids = np.unique(truth[truth > 0])
    return np.array(ndimage.maximum_position(depth, truth, ids), np.int64).reshape(-1, 2)


def combinations(
    prob: np.ndarray,
    detected: np.ndarray,
    truth: np.ndarray,
    clusters: dict[str, np.ndarray],
    min_area: int,
) -> dict[str, np.ndarray]:
    """Instance maps [H, W] of our and true masks with our and true points, by their names.

    prob [H, W] in 0..1; detected [N, 2]; truth [H, W]; clusters: cluster labels [H, W] made from
    'detected points' and 'true points', which as predictions need no network.
    """
    known = true_points(truth)
    maps = {}
    for name, mask in (("our mask", prob), ("true mask", (truth > 0).astype(np.float32))):
        by_detected = make_instances(mask, detected, min_area)
        maps[f"{name}, components"] = by_detected["components"]
        maps[f"{name}, detected points"] = by_detected["points"]
        maps[f"{name}, true points"] = make_instances(mask, known, min_area)["points"]
    for name, points in (("detected points", detected), ("true points", known)):
        cells, _ = voronoi_cells(points, truth.shape)
        maps[f"no network, cluster label of {name}"] = cells * (clusters[name] == NUCLEUS)
    return maps


def oracles(options: OracleOptions) -> str:
    """Score every combination on the images of `part`; returns a table to print."""
    image_files = load_split(options.data_dir)[options.part]
    if not image_files or not all(files.instances for files in image_files):
        raise InputError(f"{options.data_dir}: the {options.part} images need instance maps")
    refuse_unfinished(options.save_dir)
    refuse_other_run(options)
    device = choose_device(options)
    tiling = tiling_of(options, device)
    checkpoint, _ = read_selection(options.save_dir)
    network = load_network(checkpoint, device, "segmentation")
    scores: dict[str, list[dict]] = {}
    errors: dict[str, list[dict]] = {}
    for index, files in enumerate(image_files):
        image = read_image(files.image)
        truth = read_instances(files.instances, image.shape[:2], files.image)
        detected = read_detections(options.detection_dir(), files.name, truth.shape)
        clusters = {}
        for name, points in (("detected points", detected), ("true points", true_points(truth))):
            voronoi, clusters[name] = make_labels(options, image, points, index)
            errors.setdefault(name, []).append(label_errors(voronoi, clusters[name], truth))
        prob = predict_nuclei(network, image, detected, tiling, options.nucleus_radius)
        maps = combinations(prob, detected, truth, clusters, options.min_area)
        for name, instances in maps.items():
            scores.setdefault(name, []).append(score(truth, instances, options.merge_radius))
    every = np.arange(len(image_files))
    mean_scores = {name: over_images(values)(every) for name, values in scores.items()}
    mean_errors = {name: mean_of(values)(every) for name, values in errors.items()}
    value = {"part": options.part, "images": len(image_files), "scores": mean_scores}
    write_json(oracles_path(options.save_dir), {**value, "labels": mean_errors})
    return to_text(counted(len(image_files), f"{options.part} image"), mean_scores, mean_errors)


def to_text(
    title: str, scores: dict[str, dict[str, float]], errors: dict[str, dict[str, float]]
) -> str:
    """A table of scores, a line for each combination, and a line for the labels of each."""
    lines = [f"{title:45s}" + "  ".join(SHOWN)]
    for name, values in scores.items():
        lines.append(f"{name:45s}" + "  ".join(f"{values[k]:>{len(k)}.3f}" for k in SHOWN))
    for name, values in errors.items():
        words = ", ".join(f"{k} {v:.1%}" for k, v in values.items())
        lines.append(f"labels of {name}: {words}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(oracles, options)
