"""Scores of an instance map: pixels, AJI in three definitions, PQ, object Dice and Hausdorff, and
the centres of its nuclei as detections.

The scores of nuclei come from one table of overlaps. If both maps are empty, they agree, and every
score is perfect. If only one of them is empty, every score is 0 (D4).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_parts

from code_common.arrays import assign, distance_transform, points_from_instances
from code_common.detection_scores import DetectionCounts, count
from code_common.reporting.bootstrap import mean_of

# Of the centres of nuclei: those at the right place, those at a wrong one, and those not found.
COUNTS = ("centres_right", "centres_wrong", "centres_missed")


class Overlaps(NamedTuple):
    """The pairs of true and predicted nuclei that overlap.

    There are N true and M predicted nuclei, numbered from 0 in the order of their ids, and P pairs.
    """

    i: np.ndarray  # [P] number of the true nucleus of a pair
    j: np.ndarray  # [P] number of the predicted nucleus of a pair
    intersection: np.ndarray  # [P] pixels that the two have in common
    true_area: np.ndarray  # [N] pixels of each true nucleus
    predicted_area: np.ndarray  # [M] pixels of each predicted nucleus

    def union(self) -> np.ndarray:
        """Pixels [P] of the union of each pair."""
        return self.true_area[self.i] + self.predicted_area[self.j] - self.intersection

    def iou(self) -> np.ndarray:
        """Intersection over union [P] of each pair."""
        return self.intersection / self.union()

    def empty(self) -> float | None:
        """The score if a map is empty: 1 if both are, 0 if one is. None if neither is empty."""
        n, m = len(self.true_area), len(self.predicted_area)
        return None if n and m else float(n == m)


_DENSE = 1 << 24  # up to this many possible pairs of ids are counted in one dense table


def _numbered(instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map [H, W] with ids 1 to N in the same order, and the areas [N] in pixels."""
    area = np.bincount(instances.ravel())
    ids = np.flatnonzero(area[1:]) + 1
    number = np.zeros(len(area), np.int64)
    number[ids] = np.arange(1, len(ids) + 1)
    return number[instances], area[ids]


def _areas(ids: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas [N] of the nuclei of a table of ids and counts of pixels, and the number of each id."""
    area = np.bincount(ids, weights=count, minlength=1).astype(np.int64)
    area[0] = 0  # the background
    return area[area > 0], np.cumsum(area > 0) - 1


def _largest_id(instances: np.ndarray) -> int:
    return int(instances.max(initial=0))


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> Overlaps:
    """Table of overlaps of two instance maps [H, W] of integers, 0 background.

    All pixels of an id are one nucleus, even if it has several components (D4). Raises ValueError
    if the shapes differ, if they are not [H, W], or if the ids are not integers.
    """
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"expected two maps [H, W], not {truth.shape} and {predicted.shape}")
    if truth.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        raise ValueError(f"expected integer ids, not {truth.dtype} and {predicted.dtype}")
    rows, cols = _largest_id(truth) + 1, _largest_id(predicted) + 1
    if rows * cols > _DENSE:
        truth, predicted = _numbered(truth)[0], _numbered(predicted)[0]
        rows, cols = _largest_id(truth) + 1, _largest_id(predicted) + 1
    pair = truth.ravel().astype(np.int64)
    pair *= cols
    pair += predicted.ravel()
    if rows * cols <= _DENSE:
        count = np.bincount(pair, minlength=1)
        pair = np.flatnonzero(count)
        count = count[pair]
    else:
        pair, count = np.unique(pair, return_counts=True)
    true_id, predicted_id = np.divmod(pair, cols)
    true_area, true_number = _areas(true_id, count)
    predicted_area, predicted_number = _areas(predicted_id, count)
    both = (true_id > 0) & (predicted_id > 0)
    i, j = true_number[true_id[both]], predicted_number[predicted_id[both]]
    return Overlaps(i, j, count[both], true_area, predicted_area)


def _best_per_true(table: Overlaps) -> np.ndarray:
    """Index of the pair of highest IoU of each true nucleus that overlaps a prediction."""
    order = np.lexsort((-table.iou(), table.i))
    return order[np.diff(table.i[order], prepend=-1) > 0]


def _aggregated_jaccard(table: Overlaps, pairs: np.ndarray) -> float:
    """Intersection over union of the chosen pairs; all other nuclei add to the union."""
    missed = np.delete(table.true_area, table.i[pairs]).sum()
    unused = np.delete(table.predicted_area, table.j[pairs]).sum()
    union = table.union()[pairs].sum() + missed + unused
    return float(table.intersection[pairs].sum() / union)


def aji(table: Overlaps) -> float:
    """Aggregated Jaccard index in 0..1 (Kumar et al., TMI 2017).

    Each true nucleus is paired with the prediction of highest IoU. Several true nuclei may be
    paired with one prediction. Missed nuclei and unused predictions add their areas to the union.

    >>> truth = np.array([[1, 1, 0, 2, 2, 0]])
    >>> predicted = np.array([[0, 5, 5, 0, 0, 0]])
    >>> aji(overlaps(truth, predicted))  # 1 pixel of a union of 3, and nucleus 2 is missed
    0.2
    """
    empty = table.empty()
    if empty is not None:
        return empty
    return _aggregated_jaccard(table, _best_per_true(table))


def aji_plus(table: Overlaps) -> float:
    """AJI+ in 0..1 (Graham et al., HoVer-Net, MedIA 2019).

    It is the AJI of one-to-one pairs, chosen for the greatest total IoU.
    """
    empty = table.empty()
    if empty is not None:
        return empty
    return _aggregated_jaccard(table, assign(table.i, table.j, table.iou()))


def aji_reference(truth: np.ndarray, predicted: np.ndarray) -> float:
    """AJI as the released code of Qu et al. computes it, for comparison with its numbers (D3, D4).

    Each component of an id is a nucleus of its own. A true nucleus without overlap is paired with
    the first prediction: its area joins the union, and it counts as used. An empty map gives 0.
    truth and predicted: instance maps [H, W]; raises ValueError as `overlaps` does.
    """
    table = overlaps(connected_parts(truth), connected_parts(predicted))
    if table.empty() is not None:
        return 0.0
    best = _best_per_true(table)
    missed = np.delete(table.true_area, table.i[best])
    used = table.j[best]
    if len(missed):
        used = np.append(used, 0)
    union = table.union()[best].sum() + missed.sum() + len(missed) * table.predicted_area[0]
    unused = np.delete(table.predicted_area, used).sum()
    return float(table.intersection[best].sum() / (union + unused))


def unmatched(table: Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the missed true nuclei and of the wrong predicted nuclei, as PQ counts them.

    These nuclei have no partner of IoU over 0.5.
    """
    pairs = table.iou() > 0.5
    return (
        np.setdiff1d(np.arange(len(table.true_area)), table.i[pairs]),
        np.setdiff1d(np.arange(len(table.predicted_area)), table.j[pairs]),
    )


def panoptic(table: Overlaps) -> dict[str, float]:
    """Panoptic quality "pq" = "dq" x "sq", in 0..1 (Kirillov et al., CVPR 2019).

    Pairs have an IoU over 0.5. DQ is F1 of the nuclei, SQ the mean IoU of the pairs.
    """
    empty = table.empty()
    if empty is not None:
        return {"pq": empty, "dq": empty, "sq": empty}
    iou = table.iou()
    matched = iou[iou > 0.5]  # such pairs are always one-to-one
    dq = 2 * len(matched) / (len(table.true_area) + len(table.predicted_area))
    sq = float(matched.mean()) if len(matched) else 0.0
    return {"pq": dq * sq, "dq": dq, "sq": sq}


def _largest_partner(
    nucleus: np.ndarray, partner: np.ndarray, intersection: np.ndarray, count: int
) -> np.ndarray:
    """The partner of greatest intersection of each of `count` nuclei; -1 for a nucleus without one.

    nucleus, partner, intersection [P]: the pairs. Of equal partners the first is taken.
    """
    order = np.lexsort((partner, -intersection, nucleus))
    first = order[np.diff(nucleus[order], prepend=-1) > 0]
    best = np.full(count, -1)
    best[nucleus[first]] = partner[first]
    return best


def _partners(table: Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """`_largest_partner` of each true nucleus [N] and of each predicted nucleus [M]."""
    return (
        _largest_partner(table.i, table.j, table.intersection, len(table.true_area)),
        _largest_partner(table.j, table.i, table.intersection, len(table.predicted_area)),
    )


def _dice(table: Overlaps, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Dice [K] of K pairs of overlapping nuclei, given by their numbers."""
    m = len(table.predicted_area)
    keys = table.i * m + table.j  # in ascending order
    intersection = table.intersection[np.searchsorted(keys, true * m + predicted)]
    return 2 * intersection / (table.true_area[true] + table.predicted_area[predicted])


def object_dice(table: Overlaps) -> float:
    """Object-level Dice in 0..1 (Sirinukunwattana et al., GlaS, MedIA 2017).

    Each nucleus is compared with its partner of greatest intersection. The mean over the nuclei of
    a map is weighted by area. The score is the mean of both maps.
    """
    empty = table.empty()
    if empty is not None:
        return empty
    partner_of_true, partner_of_predicted = _partners(table)
    true = np.flatnonzero(partner_of_true >= 0)
    dice = _dice(table, true, partner_of_true[true])
    total = (table.true_area[true] / table.true_area.sum() * dice).sum() / 2
    predicted = np.flatnonzero(partner_of_predicted >= 0)
    dice = _dice(table, partner_of_predicted[predicted], predicted)
    total += (table.predicted_area[predicted] / table.predicted_area.sum() * dice).sum() / 2
    return float(total)


class _Objects:
    """The nuclei of a map with their extents, for distances between two nuclei."""

    def __init__(self, instances: np.ndarray):
        self.map, self.area = _numbered(instances)
        boxes = ndimage.find_objects(self.map)
        # [N, 4]: first and last row, first and last column.
        self.extent = np.array(
            [[b[0].start, b[0].stop - 1, b[1].start, b[1].stop - 1] for b in boxes]
        ).reshape(-1, 4)


def _hausdorff(a: _Objects, i: int, b: _Objects, j: int) -> float:
    """Hausdorff distance in pixels between nucleus i of a and nucleus j of b, as sets of pixels."""
    low, high = np.minimum(a.extent[i], b.extent[j]), np.maximum(a.extent[i], b.extent[j])
    box = slice(low[0], high[1] + 1), slice(low[2], high[3] + 1)
    first, second = a.map[box] == i + 1, b.map[box] == j + 1
    return max(_farthest(first, second), _farthest(second, first))


def _farthest(mask: np.ndarray, other: np.ndarray) -> float:
    """Largest distance in pixels from a pixel of one mask [h, w] bool to the other mask."""
    return float(distance_transform((~other).astype(np.uint8))[mask].max())


def _nearest_hausdorff(a: _Objects, i: int, b: _Objects) -> float:
    """Least Hausdorff distance in pixels of nucleus i of a to any nucleus of b.

    The difference between two extents is a lower bound of the distance. Candidates are tried in
    the order of this bound, until it exceeds the least distance so far.
    """
    bound = np.abs(b.extent - a.extent[i]).max(1)
    least = np.inf
    for j in np.argsort(bound, kind="stable"):
        if bound[j] >= least:
            break
        least = min(least, _hausdorff(a, i, b, j))
    return least


def object_hausdorff(truth: np.ndarray, predicted: np.ndarray, table: Overlaps) -> float:
    """Object-level Hausdorff distance in pixels (GlaS), as `object_dice` weighted by area.

    A nucleus without overlap is compared with the nearest nucleus of the other map. truth and
    predicted: instance maps [H, W]; table: their overlaps. Two empty maps give 0, and one gives the
    diagonal of the image.
    """
    empty = table.empty()
    if empty is not None:
        return 0.0 if empty else float(np.hypot(*truth.shape))
    a, b = _Objects(truth), _Objects(predicted)
    partner_of_true, partner_of_predicted = _partners(table)
    known: dict[tuple[int, int], float] = {}  # (true, predicted nucleus) -> distance
    total = 0.0
    weight = a.area / a.area.sum()
    for i, j in enumerate(partner_of_true.tolist()):
        if j < 0:
            distance = _nearest_hausdorff(a, i, b)
        else:
            distance = known[i, j] = _hausdorff(a, i, b, j)
        total += weight[i] * distance / 2
    weight = b.area / b.area.sum()
    for j, i in enumerate(partner_of_predicted.tolist()):
        if i < 0:
            distance = _nearest_hausdorff(b, j, a)
        elif (i, j) in known:
            distance = known[i, j]
        else:
            distance = _hausdorff(b, j, a, i)
        total += weight[j] * distance / 2
    return float(total)


def pixel_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall and F1 (0..1) of the foreground of two maps [H, W]."""
    t, p = truth > 0, predicted > 0
    both = int(np.count_nonzero(t & p))
    in_truth, in_prediction = int(np.count_nonzero(t)), int(np.count_nonzero(p))
    without_pixels = float(in_truth == 0 and in_prediction == 0)
    return {
        "accuracy": float(np.count_nonzero(t == p) / t.size),
        "precision": both / in_prediction if in_prediction else without_pixels,
        "recall": both / in_truth if in_truth else without_pixels,
        "f1": 2 * both / (in_truth + in_prediction) if in_truth + in_prediction else 1.0,
    }


def _centres(instances: np.ndarray) -> np.ndarray:
    """The centres [N, 2] (row, column) of the nuclei of a map [H, W]."""
    return points_from_instances(_numbered(instances)[0])


def centre_scores(counts: DetectionCounts) -> dict[str, float]:
    """Precision, recall and F1 (0..1) of the centres of nuclei, scored as detections."""
    scores = counts.scores()
    return {f"centre_{name}": scores[name] for name in ("precision", "recall", "f1")}


def score(truth: np.ndarray, predicted: np.ndarray, radius: float) -> dict[str, float]:
    """All scores of a predicted instance map [H, W] against the true one: name -> value.

    radius: of a nucleus, in pixels. A predicted nucleus is found at the right place where its
    centre is at most that far from the one of a true nucleus, as a detection of stage 1 is.
    Raises ValueError as `overlaps` does. `object_hausdorff` is in pixels, COUNTS are numbers of
    nuclei, all others are in 0..1.
    """
    centres = count(_centres(predicted), _centres(truth), radius)
    table = overlaps(truth, predicted)
    pixels = pixel_scores(truth, predicted)
    quality = panoptic(table)
    return {
        **{f"pixel_{name}": value for name, value in pixels.items()},
        "object_dice": object_dice(table),
        "object_hausdorff": object_hausdorff(truth, predicted, table),
        "aji": aji(table),
        "aji_reference": aji_reference(truth, predicted),
        "aji_plus": aji_plus(table),
        **quality,
        "f1_at_50": quality["dq"],
        **centre_scores(centres),
        **dict(zip(COUNTS, centres[:3], strict=True)),
    }


def over_images(images: Sequence[dict[str, float]]) -> Callable[[np.ndarray], dict[str, float]]:
    """The statistic of the scores of several images, given the indices of those that count.

    images: what `score` gives of each. The scores are means over the images; those of the centres
    are pooled over them, as the paper pools detections (Qu et al. 2020, Sec. IV-B).
    """
    mean = mean_of(images)

    def statistic(indices: np.ndarray) -> dict[str, float]:
        means = mean(indices)
        # Scores are ratios of the counts, so means of these are as good as sums.
        counts = DetectionCounts(*(means.pop(name) for name in COUNTS), np.zeros(0))
        return means | centre_scores(counts)

    return statistic
