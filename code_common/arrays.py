"""Array functions that several parts need: assignment, exact distance transform, holes, points."""

import cv2
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def assign(i: np.ndarray, j: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The one-to-one assignment of greatest total weight among candidate pairs.

    i, j [P]: numbers of the left and of the right item of each pair; weight [P] > 0. Returns the
    sorted indices [K] of the chosen pairs. Groups of items that no candidate links are solved one
    by one, so time grows with the number of groups and not with the square of all items.
    """
    if len(i) == 0:
        return np.zeros(0, np.int64)
    n, m = i.max() + 1, j.max() + 1
    graph = coo_array((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[i], kind="stable")
    bounds = np.flatnonzero(np.diff(group[i][order], prepend=-1, append=-1))  # of groups in `order`
    chosen = []
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        pairs = order[begin:end]
        if len(pairs) == 1:
            chosen.append(pairs)
            continue
        rows, r = np.unique(i[pairs], return_inverse=True)
        cols, c = np.unique(j[pairs], return_inverse=True)
        weights, index = np.zeros((len(rows), len(cols))), np.full((len(rows), len(cols)), -1)
        weights[r, c], index[r, c] = weight[pairs], pairs
        assigned = index[linear_sum_assignment(weights, maximize=True)]
        chosen.append(assigned[assigned >= 0])  # -1: items that are no candidate pair
    return np.sort(np.concatenate(chosen))


def distance_transform(free: np.ndarray) -> np.ndarray:
    """Distance [H, W] float32 in pixels of each pixel to the nearest pixel of value 0.

    free [H, W] uint8 with at least one 0. OpenCV's distances differ in their last bits from run to
    run. Their squares are whole numbers, so rounding these removes the difference.
    """
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(distance)))


def framed(mask: np.ndarray, value: int = 0) -> np.ndarray:
    """A mask [H, W] uint8 in a frame of one pixel of a value: [H + 2, W + 2]."""
    return cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=value)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Mask [H, W] uint8 (0, 1) with its holes filled.

    A hole is background that is not 4-connected with the border of the image.
    """
    _, parts = cv2.connectedComponents(framed(1 - mask, 1), connectivity=4)
    return (parts != parts[0, 0])[1:-1, 1:-1].astype(np.uint8)


def points_from_instances(instances: np.ndarray) -> np.ndarray:
    """One point per nucleus of an instance map [H, W]: [N, 2] (row, column), in order of the ids.

    The point is the centre of the bounding box, where a person would click. If that lies outside
    the nucleus (a crescent, an id of several components), it is the nearest pixel of it (D21).
    """
    points = []
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        rows, cols = box
        point = np.array([(rows.start + rows.stop - 1) // 2, (cols.start + cols.stop - 1) // 2])
        if instances[tuple(point)] != label:
            pixels = np.argwhere(instances[box] == label) + (rows.start, cols.start)
            point = pixels[((pixels - point) ** 2).sum(1).argmin()]
        points.append(point)
    return np.array(points, dtype=np.int64).reshape(-1, 2)
