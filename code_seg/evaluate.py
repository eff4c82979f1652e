"""From an image to instance maps by each method, and the scores that choose a checkpoint."""

import numpy as np
from torch import nn

from code_common.inference.magnification import enlarged, magnification, reduced_map
from code_common.inference.tiling import Read, predict_prob, reader
from code_seg.convex import convex_instances
from code_seg.instances import components, split_by_points
from code_seg.labels import IGNORED
from code_seg.metrics import aji, overlaps

WINDOW, WINDOWS = 448, 9  # side in pixels and number of the parts of a large image looked at
SPECK = 20  # square pixels under which a component says nothing of nuclei


def median_radius(
    network: nn.Module, read: Read, shape: tuple[int, int], points: np.ndarray | None, tiling: dict
) -> float:
    """Median radius in pixels of the nuclei that a network finds in an image [H, W].

    Convex ones with the points [N, 2], for specks are many; without points the components. Of a
    large image WINDOWS parts are looked at, around some of the points. nan where nothing is found.
    """
    parts = [(0, 0, *shape)]
    if max(shape) > 3 * WINDOW:
        at = points
        if at is None or not len(at):
            at = np.linspace((0, 0), shape, WINDOWS + 2).astype(int)[1:-1]
        size = np.minimum(WINDOW, shape)
        chosen = at[np.linspace(0, len(at) - 1, WINDOWS).astype(int)]
        corners = np.clip(chosen - size // 2, 0, shape - size)
        parts = [(row, col, *size.tolist()) for row, col in corners.tolist()]
    areas = []
    for row, col, rows, cols in parts:
        prob = predict_prob(network, read(row, col, rows, cols), {**tiling, "views": 1})
        own = None
        if points is not None:
            own = points - (row, col)
            own = own[((own >= 0) & (own < (rows, cols))).all(1)]
        maps = make_instances(prob, own, SPECK)
        found = maps.get("convex", maps["components"])
        areas.append(np.bincount(found[found > 0]))
    sizes = np.concatenate(areas)
    sizes = sizes[sizes > 0]
    return float(np.sqrt(np.median(sizes) / np.pi)) if len(sizes) else float("nan")


def choose_magnification(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    points: np.ndarray | None,
    tiling: dict,
    radius: float,
) -> float:
    """How much to magnify an image, so that its nuclei get a median radius of `radius` pixels.

    1 where they are large enough, or `radius` is 0. A first look of the network tells.
    """
    if not radius:
        return 1.0
    return magnification(median_radius(network, read, shape, points, tiling), radius)


def predict_enlarged(
    network: nn.Module, image: np.ndarray, tiling: dict, factor: float
) -> np.ndarray:
    """Probability [H, W] of a nucleus in an image [H, W, 3] that is seen magnified by `factor`."""
    prob = predict_prob(network, enlarged(image, factor), tiling)
    return reduced_map(prob, image.shape[:2], factor)


def predict_nuclei(
    network: nn.Module, image: np.ndarray, points: np.ndarray | None, tiling: dict, radius: float
) -> np.ndarray:
    """Probability [H, W] of a nucleus in an image [H, W, 3], magnified to the radius wanted."""
    read, shape = reader(image), image.shape[:2]
    factor = choose_magnification(network, read, shape, points, tiling, radius)
    return predict_enlarged(network, image, tiling, factor)


def make_instances(
    prob: np.ndarray, points: np.ndarray | None, min_area: int
) -> dict[str, np.ndarray]:
    """Instance maps [H, W] by those of METHODS that need no points or, given points, by all."""
    maps = {"components": components(prob, min_area)}
    if points is not None:
        maps["points"] = split_by_points(maps["components"], points, min_area)
        maps["convex"] = convex_instances(maps["components"], prob, points, min_area)
    return maps


def mean_aji(
    probs: list[np.ndarray], points: list[np.ndarray | None], truth: list[np.ndarray], min_area: int
) -> dict[str, float]:
    """Mean AJI over images for each method that all of them allow."""
    scores: dict[str, list[float]] = {}
    for prob, own, true in zip(probs, points, truth, strict=True):
        for method, instances in make_instances(prob, own, min_area).items():
            scores.setdefault(method, []).append(aji(overlaps(true, instances)))
    return {m: float(np.mean(v)) for m, v in scores.items() if len(v) == len(truth)}


def label_likelihood(prob: np.ndarray, labels: list[np.ndarray]) -> float:
    """Mean log likelihood of the labels [H, W] under a probability map: a score without masks."""
    p = np.clip(prob, 1e-6, 1 - 1e-6)
    means = []
    for label in labels:
        known = label != IGNORED
        if known.any():
            means.append(np.log(np.where(label == 1, p, 1 - p)[known]).mean())
    return float(np.mean(means)) if means else float("nan")
