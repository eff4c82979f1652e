"""What the preparing scripts share: labels of one image, and how wrong the labels of a set are."""

from pathlib import Path

import numpy as np

from code_common.files.writing import write_json
from code_common.options import Purpose
from code_seg.labels import cluster_label, voronoi_cells, voronoi_label
from code_seg.options import CLUSTER_COLOURS, Options


def make_labels(
    options: Options, image: np.ndarray, points: np.ndarray, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi label and cluster label [H, W] of an image; `index` seeds the clustering."""
    cells, distance = voronoi_cells(points, image.shape[:2])
    colours = options.cluster_colours
    clusters = cluster_label(
        image[..., :1] if colours == "red" else image,
        points,
        cells,
        distance,
        rng=np.random.default_rng((options.seed(Purpose.DRAW), index)),
        clusters=options.clusters,
        colour_scale=CLUSTER_COLOURS[colours],
        distance_limit=options.distance_limit,
    )
    return voronoi_label(points, cells), clusters


def write_label_errors(path: Path, errors: dict[str, dict]) -> dict[str, float]:
    """Write the label errors of images with masks and their means over the training images.

    errors: image -> 'set' (train or val) and shares. Returns the means; without a training image
    there are none, and no file: that of an earlier call is removed.
    """
    train = [e for e in errors.values() if e["set"] == "train"]
    if not train:
        path.unlink(missing_ok=True)
        return {}
    means = {k: float(np.mean([e[k] for e in train])) for k in train[0] if k != "set"}
    write_json(path, {"mean_train": means, "images": errors})
    return means
