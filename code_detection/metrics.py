"""Detection scores: optimal one-to-one matching within r1 (Qu et al. 2020, Sec. IV-B)."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from code_common.arrays import assign


class DetectionCounts(NamedTuple):
    """Counts of one image or, added up, of several."""

    tp: int
    fp: int
    fn: int
    distances: np.ndarray  # of the matched pairs in pixels

    def as_json(self) -> list:
        """The counts as plain JSON values, which `from_json` reads."""
        return [*self[:3], self.distances.tolist()]

    @classmethod
    def from_json(cls, value: list) -> "DetectionCounts":
        """The counts of what `as_json` gave."""
        return cls(*value[:3], np.array(value[3], dtype=np.float64))

    def scores(self) -> dict[str, float]:
        """Precision, recall, F1 in 0..1, mean and deviation of the localisation error in pixels."""
        tp, fp, fn, d = self
        return {
            "precision": tp / (tp + fp) if tp + fp else float(fn == 0),
            "recall": tp / (tp + fn) if tp + fn else float(fp == 0),
            "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
            "mean_distance": float(d.mean()) if len(d) else 0.0,
            "std_distance": float(d.std()) if len(d) else 0.0,
        }


def match(detected: np.ndarray, truth: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of detected and true points at most `radius` pixels apart: indices into both.

    One-to-one, as many pairs as possible and, among these, with the least total distance (D5).
    points: [N, 2].
    """
    none = np.zeros(0, np.int64)
    if len(detected) == 0 or len(truth) == 0:
        return none, none
    near = cKDTree(detected).sparse_distance_matrix(
        cKDTree(truth), radius, output_type="coo_matrix"
    )
    # One pair more weighs more than all distances together.
    weight = radius * (1 + min(len(detected), len(truth))) + 1 - near.data
    chosen = assign(near.row, near.col, weight)
    chosen = chosen[np.argsort(near.row[chosen])]
    return near.row[chosen], near.col[chosen]


def count(
    detected: np.ndarray, truth: np.ndarray, radius: float, known_within: float | None = None
) -> DetectionCounts:
    """Counts of one image's detections against its true points, both [N, 2].

    `known_within`: the truth is partial, so a detection that matches nothing is an error only
    within this distance of a true point (D15: no hidden annotation of the validation images).
    """
    i, j = match(detected, truth, radius)
    wrong = np.delete(detected, i, axis=0)
    if known_within is not None and len(wrong):
        reach = cKDTree(truth).query(wrong)[0] if len(truth) else np.full(len(wrong), np.inf)
        wrong = wrong[reach <= known_within]
    distances = np.linalg.norm(detected[i] - truth[j], axis=1)
    return DetectionCounts(len(i), len(wrong), len(truth) - len(i), distances)


def add(counts: list[DetectionCounts]) -> DetectionCounts:
    """Counts of several images together: the paper pools them."""
    sums = [sum(c[k] for c in counts) for k in range(3)]
    return DetectionCounts(*sums, np.concatenate([c.distances for c in counts] or [np.zeros(0)]))
