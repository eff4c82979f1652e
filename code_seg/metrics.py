"""Scores of an instance map: pixels, AJI in three definitions, PQ, object Dice and Hausdorff.

All of them come from one table of overlaps. Two empty maps agree: every score is perfect; with
one of them empty, every score is 0 (D4).
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_parts

from code_common.arrays import assign, distance_transform


class Overlaps(NamedTuple):
    """Which true and predicted nuclei overlap; nuclei are numbered from 0 in order of their ids."""

    i: np.ndarray  # [P] number of the true nucleus of a pair
    j: np.ndarray  # [P] number of the predicted one
    intersection: np.ndarray  # [P] pixels in common
    true_area: np.ndarray  # [N] pixels of each true nucleus
    predicted_area: np.ndarray  # [M] pixels of each predicted nucleus

    def union(self) -> np.ndarray:
        """Pixels [P] of the union of each pair."""
        return self.true_area[self.i] + self.predicted_area[self.j] - self.intersection

    def empty(self) -> float | None:
        """The score where a map is empty: 1 for both, 0 for one; None where neither is."""
        n, m = len(self.true_area), len(self.predicted_area)
        return None if n and m else float(n == m)


_DENSE = 1 << 24  # entries up to which the table of all pairs of ids is counted at once


def _numbered(instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map with the ids 1..N in their order, and the areas [N]."""
    area = np.bincount(instances.ravel())
    ids = np.flatnonzero(area[1:]) + 1
    number = np.zeros(len(area), np.int64)
    number[ids] = np.arange(1, len(ids) + 1)
    return number[instances], area[ids]


def _areas(ids: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas [N] of the ids that occur, without 0, and the number from 0 of each id."""
    area = np.bincount(ids, weights=count, minlength=1).astype(np.int64)
    area[0] = 0
    return area[area > 0], np.cumsum(area > 0) - 1


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> Overlaps:
    """Table of overlaps of two instance maps [H, W] (0 background).

    An id is a nucleus, also where it has several components (D4). Raises ValueError where the
    shapes differ or the arrays are not integer.
    """
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"expected two maps [H, W], not {truth.shape} and {predicted.shape}")
    if truth.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        raise ValueError(f"expected integer ids, not {truth.dtype} and {predicted.dtype}")
    rows, cols = (int(m.max(initial=0)) + 1 for m in (truth, predicted))
    if rows * cols > _DENSE:
        truth, predicted = _numbered(truth)[0], _numbered(predicted)[0]
        rows, cols = (int(m.max(initial=0)) + 1 for m in (truth, predicted))
    pair = truth.ravel().astype(np.int64)
    pair *= cols
    pair += predicted.ravel()
    if rows * cols <= _DENSE:
        count = np.bincount(pair, minlength=1)
        pair = np.flatnonzero(count)
        count = count[pair]
    else:
        pair, count = np.unique(pair, return_counts=True)
    i, j = np.divmod(pair, cols)
    (true_area, true_number), (predicted_area, predicted_number) = (
        _areas(i, count),
        _areas(j, count),
    )
    both = (i > 0) & (j > 0)
    return Overlaps(
        true_number[i[both]], predicted_number[j[both]], count[both], true_area, predicted_area
    )


def _best_per_true(o: Overlaps) -> np.ndarray:
    """Index of the pair with the highest IoU for each true nucleus that overlaps anything."""
    order = np.lexsort((-o.intersection / o.union(), o.i))
    return order[np.diff(o.i[order], prepend=-1) > 0]


def aji(o: Overlaps) -> float:
    """Aggregated Jaccard index (Kumar et al., TMI 2017).

    Each true nucleus takes the prediction of highest IoU (one prediction may serve several);
    missed nuclei and unused predictions add their areas to the union.
    """
    if (score := o.empty()) is not None:
        return score
    best = _best_per_true(o)
    missed = np.delete(o.true_area, o.i[best]).sum()
    unused = np.delete(o.predicted_area, o.j[best]).sum()
    return float(o.intersection[best].sum() / (o.union()[best].sum() + missed + unused))


def aji_plus(o: Overlaps) -> float:
    """AJI+ (Graham et al., HoVer-Net, MedIA 2019): pairs one-to-one, of greatest total IoU."""
    if (score := o.empty()) is not None:
        return score
    pairs = assign(o.i, o.j, o.intersection / o.union())
    missed = np.delete(o.true_area, o.i[pairs]).sum()
    unused = np.delete(o.predicted_area, o.j[pairs]).sum()
    return float(o.intersection[pairs].sum() / (o.union()[pairs].sum() + missed + unused))


def aji_reference(truth: np.ndarray, predicted: np.ndarray) -> float:
    """AJI as the code released with Qu et al. computes it (D3, D4), to compare with its numbers.

    The components of the ids are the nuclei, and a true nucleus without overlap takes the first
    prediction: its area joins the union, and it counts as used.
    """
    o = overlaps(connected_parts(truth), connected_parts(predicted))
    if o.empty() is not None:
        return 0.0
    best = _best_per_true(o)
    missed = np.delete(o.true_area, o.i[best])
    used = np.append(o.j[best], [0] * (len(missed) > 0)).astype(int)
    union = o.union()[best].sum() + missed.sum() + len(missed) * o.predicted_area[0]
    unused = np.delete(o.predicted_area, used).sum()
    return float(o.intersection[best].sum() / (union + unused))


def unmatched(o: Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the true nuclei that were missed and of the predicted ones that are wrong.

    So says PQ: those without a partner at IoU over 0.5.
    """
    pairs = o.intersection / o.union() > 0.5
    return (
        np.setdiff1d(np.arange(len(o.true_area)), o.i[pairs]),
        np.setdiff1d(np.arange(len(o.predicted_area)), o.j[pairs]),
    )


def panoptic(o: Overlaps) -> dict[str, float]:
    """PQ = DQ x SQ (Kirillov et al., CVPR 2019): pairs with IoU over 0.5. DQ is F1 at IoU 0.5."""
    if (score := o.empty()) is not None:
        return {"pq": score, "dq": score, "sq": score}
    iou = o.intersection / o.union()
    matched = iou[iou > 0.5]  # such pairs are one-to-one by themselves
    dq = 2 * len(matched) / (len(o.true_area) + len(o.predicted_area))
    sq = float(matched.mean()) if len(matched) else 0.0
    return {"pq": dq * sq, "dq": dq, "sq": sq}


def _largest_partner(by: np.ndarray, partner: np.ndarray, size: np.ndarray, n: int) -> np.ndarray:
    """Partner [n] of greatest intersection of each object, -1 without any; ties: the first."""
    order = np.lexsort((partner, -size, by))
    first = order[np.diff(by[order], prepend=-1) > 0]
    best = np.full(n, -1)
    best[by[first]] = partner[first]
    return best


def _partners(o: Overlaps) -> tuple[np.ndarray, np.ndarray]:
    return (
        _largest_partner(o.i, o.j, o.intersection, len(o.true_area)),
        _largest_partner(o.j, o.i, o.intersection, len(o.predicted_area)),
    )


def object_dice(o: Overlaps) -> float:
    """Object-level Dice (Sirinukunwattana et al., GlaS, MedIA 2017), weighted by area."""
    if (score := o.empty()) is not None:
        return score
    m = len(o.predicted_area)
    key = o.i * m + o.j  # ascending
    total = 0.0
    for left, partner in zip((True, False), _partners(o), strict=True):
        own, other = (o.true_area, o.predicted_area)[:: 1 if left else -1]
        has = np.flatnonzero(partner >= 0)
        pair = has * m + partner[has] if left else partner[has] * m + has
        common = o.intersection[np.searchsorted(key, pair)]
        dice = 2 * common / (own[has] + other[partner[has]])
        total += (own[has] / own.sum() * dice).sum() / 2
    return float(total)


class _Objects:
    """The nuclei of a map as boxes, for distances between two of them."""

    def __init__(self, instances: np.ndarray):
        self.map, self.area = _numbered(instances)
        boxes = ndimage.find_objects(self.map)
        # First and last row, first and last column: the set's extent in four directions.
        self.extent = np.array(
            [[b[0].start, b[0].stop - 1, b[1].start, b[1].stop - 1] for b in boxes]
        ).reshape(-1, 4)


def _hausdorff(a: _Objects, i: int, b: _Objects, j: int) -> float:
    """Hausdorff distance in pixels between nucleus i of a and nucleus j of b, both filled sets."""
    low, high = np.minimum(a.extent[i], b.extent[j]), np.maximum(a.extent[i], b.extent[j])
    box = slice(low[0], high[1] + 1), slice(low[2], high[3] + 1)
    first, second = a.map[box] == i + 1, b.map[box] == j + 1
    distances = []
    for one, other in ((first, second), (second, first)):
        distances.append(float(distance_transform((~other).astype(np.uint8))[one].max()))
    return max(distances)


def _nearest_hausdorff(a: _Objects, i: int, b: _Objects) -> float:
    """Least Hausdorff distance of nucleus i of a to any of b.

    The difference of two sets' extents in a direction is a lower bound of it: candidates are
    tried in that order until the bound exceeds the best.
    """
    bound = np.abs(b.extent - a.extent[i]).max(1)
    best = np.inf
    for j in np.argsort(bound, kind="stable"):
        if bound[j] >= best:
            break
        best = min(best, _hausdorff(a, i, b, j))
    return best


def object_hausdorff(truth: np.ndarray, predicted: np.ndarray, o: Overlaps) -> float:
    """Object-level Hausdorff distance in pixels (GlaS), weighted by area.

    An object without overlap takes the nearest one. Both maps empty: 0; one: the image's diagonal.
    """
    if (score := o.empty()) is not None:
        return 0.0 if score else float(np.hypot(*truth.shape))
    a, b = _Objects(truth), _Objects(predicted)
    known: dict[tuple[int, int], float] = {}
    total = 0.0
    for left, partner in zip((True, False), _partners(o), strict=True):
        own, other = (a, b) if left else (b, a)
        weight = own.area / own.area.sum()
        for i, j in enumerate(partner.tolist()):
            pair = (i, j) if left else (j, i)
            if j < 0:
                value = _nearest_hausdorff(own, i, other)
            elif pair in known:
                value = known[pair]
            else:
                value = known[pair] = _hausdorff(own, i, other, j)
            total += weight[i] * value / 2
    return float(total)


def pixel_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall, F1 of the foreground of two maps [H, W]."""
    t, p = truth > 0, predicted > 0
    both, true, found = (int(np.count_nonzero(x)) for x in (t & p, t, p))
    perfect = float(true == found == 0)
    return {
        "accuracy": float(np.count_nonzero(t == p) / t.size),
        "precision": both / found if found else perfect,
        "recall": both / true if true else perfect,
        "f1": 2 * both / (true + found) if true + found else 1.0,
    }


def score(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Every score of a predicted instance map [H, W] against the true one."""
    o = overlaps(truth, predicted)
    scores = pixel_scores(truth, predicted)
    quality = panoptic(o)
    return {
        **{f"pixel_{k}": v for k, v in scores.items()},
        "object_dice": object_dice(o),
        "object_hausdorff": object_hausdorff(truth, predicted, o),
        "aji": aji(o),
        "aji_reference": aji_reference(truth, predicted),
        "aji_plus": aji_plus(o),
        **quality,
        "f1_at_50": quality["dq"],
    }
