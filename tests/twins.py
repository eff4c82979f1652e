"""Slow, obvious versions of the fast code: the reference of tests and benchmarks."""

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from code_seg.morphology import disk


def objects(instances):
    """The masks of all nuclei."""
    return [instances == k for k in np.unique(instances) if k]


def slow_aji(truth, predicted):
    """Kumar's definition: masks and loops; nuclei that share no pixel are not tried."""
    intersection = union = 0
    used = set()
    for true in objects(truth):
        touching = {k: predicted == k for k in np.unique(predicted[true]) if k}
        if not touching:
            union += true.sum()
            continue
        best = max(touching, key=lambda k: (true & touching[k]).sum() / (true | touching[k]).sum())
        intersection += (true & touching[best]).sum()
        union += (true | touching[best]).sum()
        used.add(best)
    unused = [k for k in np.unique(predicted) if k and k not in used]
    return intersection / (union + sum((predicted == k).sum() for k in unused))


def slow_objects(truth, predicted, value, fallback):
    """Object-level score (GlaS): `value` of the partner of largest overlap, weighted by area."""
    total = 0.0
    for one, other in ((truth, predicted), (predicted, truth)):
        area = (one > 0).sum()
        for mask in objects(one):
            shared = np.bincount(other[mask])
            shared[0] = 0
            if shared.max(initial=0):
                score = value(mask, other == shared.argmax())
            else:
                score = fallback(mask, other)
            total += mask.sum() / area * score / 2
    return total


def slow_dice(truth, predicted):
    """Object-level Dice."""

    def dice(a, b):
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    def nothing(*_):
        return 0.0

    return slow_objects(truth, predicted, dice, nothing)


def slow_hausdorff(truth, predicted):
    """Object-level Hausdorff distance, over all pixels of two nuclei."""

    def distance(a, b):
        a, b = np.argwhere(a), np.argwhere(b)
        return max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])

    def nearest(mask, other):
        return min(distance(mask, partner) for partner in objects(other))

    return slow_objects(truth, predicted, distance, nearest)


def slow_refine(mask, cells, grow=5, shrink=7, min_area=30):
    """Refinement of the cluster label, cell by cell on the whole image."""
    refined, margin = np.zeros(mask.shape, bool), 20
    inner = slice(margin, -margin), slice(margin, -margin)
    for number in range(1, cells.max() + 1):
        cell = cells == number
        part = ndimage.binary_dilation(np.pad(mask & cell, margin), disk(grow))
        part = ndimage.binary_fill_holes(part)
        part = ndimage.binary_erosion(part, disk(shrink))[inner]
        refined |= part & cell
    parts, count = ndimage.label(refined, structure=np.ones((3, 3)))
    sizes = ndimage.sum(refined, parts, range(count + 1))
    return (sizes >= min_area)[parts] & refined


def slow_known(points, shape, r2):
    """Disks of radius r2 around points: one large dilation."""
    dots = np.zeros(shape, bool)
    dots[points[:, 0], points[:, 1]] = True
    return ndimage.binary_dilation(dots, disk(r2))


def slow_voronoi(points, shape):
    """Nearest point of each pixel, one distance map per point."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    cells, best = np.zeros(shape, np.int32), np.full(shape, np.inf)
    for number, (row, col) in enumerate(points, start=1):
        distance = np.square(y - row) + np.square(x - col)
        nearer = distance < best
        cells[nearer], best[nearer] = number, distance[nearer]
    return cells
