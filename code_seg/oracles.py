"""Which part loses most? Scores with true masks, points or labels in place of a run's own.

python code_seg/oracles.py --dataset MO --ratio 0.1

Looks at the validation images of a finished run, whose options it takes, and writes oracles.json.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.arrays import distance_transform
from code_common.config import check_choices, parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import load_split
from code_common.files.reading import read_image, read_instances, read_points
from code_common.files.writing import write_json
from code_common.learning.checkpoints import load_network
from code_common.reporting.bootstrap import mean_of
from code_seg.evaluate import make_instances, predict_nuclei
from code_seg.labels import NUCLEUS, label_errors, voronoi_cells
from code_seg.metrics import score
from code_seg.options import Options
from code_seg.prepare_data import detections_path, make_labels
from code_seg.test import read_selection

SHOWN = ("pixel_f1", "object_dice", "aji", "pq")


@dataclass(frozen=True)
class OracleOptions(Options):
    """Options of oracles.py."""

    part: str = "val"  # images to look at: val, or test (to know, never to choose by)

    def resolved(self) -> "OracleOptions":
        """The options, checked; raises InputError."""
        check_choices(self, {"part": ("val", "test")})
        return super().resolved()


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
    for name, own in (("our mask", prob), ("true mask", (truth > 0).astype(np.float32))):
        by_detected = make_instances(own, detected, min_area)
        maps[f"{name}, components"] = by_detected["components"]
        maps[f"{name}, detected points"] = by_detected["points"]
        maps[f"{name}, true points"] = make_instances(own, known, min_area)["points"]
    for name, points in (("detected points", detected), ("true points", known)):
        cells, _ = voronoi_cells(points, truth.shape)
        maps[f"no network, cluster label of {name}"] = cells * (clusters[name] == NUCLEUS)
    return maps


def oracles(options: OracleOptions) -> str:
    """Score every combination on the images of `part`; returns a table to print."""
    samples = load_split(options.data_dir)[options.part]
    if not samples or not all(s.instances for s in samples):
        raise InputError(f"{options.data_dir}: the {options.part} images need instance maps")
    device = options.choose_device()
    chosen = read_selection(options.save_dir / "selection.json")["checkpoint"]
    network = load_network(options.save_dir / chosen, device)
    scores: dict[str, list[dict]] = {}
    labels: dict[str, list[dict]] = {}
    for index, sample in enumerate(samples):
        image = read_image(sample.image)
        truth = read_instances(sample.instances, image.shape[:2])
        path = detections_path(options.detection_dir(), sample.name)
        points = {"detected points": read_points(path, truth.shape)}
        points["true points"] = true_points(truth)
        clusters = {}
        for name, own in points.items():
            voronoi, clusters[name] = make_labels(options, image, own, index)
            labels.setdefault(name, []).append(label_errors(voronoi, clusters[name], truth))
        found = points["detected points"]
        tiling = options.tiling(device)
        prob = predict_nuclei(network, image, found, tiling, options.magnify_to)
        maps = combinations(prob, found, truth, clusters, options.min_area)
        for name, own in maps.items():
            scores.setdefault(name, []).append(score(truth, own))
    every = np.arange(len(samples))
    means = {name: mean_of(own)(every) for name, own in scores.items()}
    errors = {name: mean_of(own)(every) for name, own in labels.items()}
    value = {"part": options.part, "images": len(samples), "scores": means, "labels": errors}
    write_json(options.save_dir / "oracles.json", value)
    lines = [f"{len(samples)} {options.part} images" + " " * 29 + "  ".join(SHOWN)]
    lines += [f"{name:45s}" + "".join(f"{own[k]:>{len(k)}.3f}  " for k in SHOWN)
              for name, own in means.items()]  # fmt: skip
    for name, own in errors.items():
        told = ", ".join(f"{k} {v:.1%}" for k, v in own.items())
        lines.append(f"labels of {name}: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(lambda: parse(OracleOptions, __doc__).run(oracles))
