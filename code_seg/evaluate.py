"""Instance maps by every method, and the scores that choose a checkpoint and a method."""

import numpy as np

from code_seg.convex import convex_instances
from code_seg.instances import components, split_by_points
from code_seg.labels import IGNORED, NUCLEUS
from code_seg.metrics import aji, overlaps


def make_instances(
    prob: np.ndarray, points: np.ndarray | None, min_area: int
) -> dict[str, np.ndarray]:
    """Instance maps [H, W] by the methods that need no points or, given points [N, 2], by all."""
    maps = {"components": components(prob, min_area)}
    if points is not None:
        maps["points"] = split_by_points(maps["components"], points, min_area)
        maps["convex"] = convex_instances(maps["components"], prob, points, min_area)
    return maps


def mean_aji(
    probs: list[np.ndarray],
    points: list[np.ndarray | None],
    truth: list[np.ndarray],
    min_area: int,
) -> dict[str, float]:
    """Mean AJI over images for each method that all of them allow."""
    scores: dict[str, list[float]] = {}
    for prob, detected, true in zip(probs, points, truth, strict=True):
        for method, instances in make_instances(prob, detected, min_area).items():
            scores.setdefault(method, []).append(aji(overlaps(true, instances)))
    return {m: float(np.mean(v)) for m, v in scores.items() if len(v) == len(truth)}


def label_likelihood(prob: np.ndarray, labels: list[np.ndarray]) -> float:
    """Mean log likelihood of the labels [H, W] under a probability map: a score without masks."""
    p = np.clip(prob, 1e-6, 1 - 1e-6)
    means = []
    for label in labels:
        known = label != IGNORED
        if known.any():
            means.append(np.log(np.where(label == NUCLEUS, p, 1 - p)[known]).mean())
    return float(np.mean(means)) if means else float("nan")
