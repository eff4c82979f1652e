"""Detection scores: optimal one-to-one matching within r1 (Qu et al. 2020, Sec. IV-B)."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from code_common.arrays import assign


class DetectionCounts(NamedTuple):
    """Counts of one image, or the sum over several images."""

    tp: int
    fp: int
    fn: int
    distances: np.ndarray  # [tp] between the points of each matched pair, in pixels

    def as_json(self) -> list:
        """The counts as JSON values. `from_json` reads them."""
        return [*self[:3], self.distances.tolist()]

    @classmethod
    def from_json(cls, value: list) -> "DetectionCounts":
        """The counts that `as_json` gave."""
        return cls(*value[:3], np.array(value[3], dtype=np.float64))

    def scores(self) -> dict[str, float]:
        """Precision, recall and F1 in 0..1; mean and deviation of the distances in pixels.

        The distance is the localisation error of Qu et al. 2020. Nothing to detect and nothing
        detected gives 1 for the first three.
        """
        tp, fp, fn, distances = self
        return {
            "precision": tp / (tp + fp) if tp + fp else float(fn == 0),
            "recall": tp / (tp + fn) if tp + fn else float(fp == 0),
            "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
            "mean_distance": float(distances.mean()) if len(distances) else 0.0,
            "std_distance": float(distances.std()) if len(distances) else 0.0,
        }


def match(detected: np.ndarray, truth: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Match detected points [N, 2] with true points [M, 2], at most `radius` pixels apart.

    The matching is one-to-one and has as many pairs as possible. Of such matchings it has the
    least total distance (D5). Returns the indices [K] of the detected and of the true points.
    """
    none = np.zeros(0, np.int64)
    if len(detected) == 0 or len(truth) == 0:
        return none, none
    candidates = cKDTree(detected).sparse_distance_matrix(
        cKDTree(truth), radius, output_type="coo_matrix"
    )
    # One more pair weighs more than all distances together.
    weight = radius * (1 + min(len(detected), len(truth))) + 1 - candidates.data
    chosen = assign(candidates.row, candidates.col, weight)
    chosen = chosen[np.argsort(candidates.row[chosen])]
    return candidates.row[chosen], candidates.col[chosen]


def count(
    detected: np.ndarray, truth: np.ndarray, radius: float, known_within: float | None = None
) -> DetectionCounts:
    """Counts of the detections [N, 2] of one image against its true points [M, 2].

    radius: largest distance in pixels of a matched pair. known_within: for a partial truth; a
    detection without a match is then an error only within this distance in pixels of a true point
    (D15: validation uses no points that are not annotated). None: the truth is complete.
    """
    i, j = match(detected, truth, radius)
    wrong = np.delete(detected, i, axis=0)
    if known_within is not None and len(wrong):
        distance = cKDTree(truth).query(wrong)[0] if len(truth) else np.full(len(wrong), np.inf)
        wrong = wrong[distance <= known_within]
    distances = np.linalg.norm(detected[i] - truth[j], axis=1)
    return DetectionCounts(len(i), len(wrong), len(truth) - len(i), distances)


def add(counts: list[DetectionCounts]) -> DetectionCounts:
    """The sum of the counts of several images. The paper pools them like this."""
    sums = [sum(c[k] for c in counts) for k in range(3)]
    return DetectionCounts(*sums, np.concatenate([c.distances for c in counts] or [np.zeros(0)]))
