"""Two array functions that both stages need: optimal assignment, exact distance transform."""

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def assign(i: np.ndarray, j: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Indices into the candidate pairs (i, j) of the one-to-one assignment of greatest weight.

    i, j [P]: numbers of the left and the right item; weight [P] > 0. Only items that are linked
    by candidates are solved together, so a hundred thousand take as long as their neighbourhoods.
    """
    if len(i) == 0:
        return np.zeros(0, np.int64)
    n, m = i.max() + 1, j.max() + 1
    graph = coo_array((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[i], kind="stable")
    bounds = np.flatnonzero(np.diff(group[i][order], prepend=-1, append=-1))
    chosen = []
    for a, b in zip(bounds[:-1], bounds[1:], strict=True):
        pairs = order[a:b]
        if len(pairs) == 1:
            chosen.append(pairs)
            continue
        rows, r = np.unique(i[pairs], return_inverse=True)
        cols, c = np.unique(j[pairs], return_inverse=True)
        table, index = np.zeros((len(rows), len(cols))), np.full((len(rows), len(cols)), -1)
        table[r, c], index[r, c] = weight[pairs], pairs
        found = index[linear_sum_assignment(table, maximize=True)]
        chosen.append(found[found >= 0])
    return np.sort(np.concatenate(chosen))


def distance_transform(free: np.ndarray) -> np.ndarray:
    """Distance [H, W] float32 in pixels of each pixel to the nearest one that is 0.

    free [H, W] uint8 with at least one 0. The distances of OpenCV differ in their last bits from
    run to run; their squares are whole numbers, which takes that away.
    """
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(distance)))
