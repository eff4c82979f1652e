"""Labels of stage 1: partial points and extended Gaussian mask (Qu et al. 2020, Sec. III-A)."""

import math

import cv2
import numpy as np

from code_common.arrays import points_from_instances

# Below this value the Gaussian is cut off: beyond 2.45 sigma, which is 6.7 px at sigma 2.75. The
# paper draws the Gaussian up to r1, but its published numbers come from this cut.
PEAK_CUTOFF = 0.05


def points_from_map(label: np.ndarray) -> np.ndarray:
    """Points [N, 2] (row, column) of a point label [H, W]: one for each of its `dots_of`, as
    `points_from_instances` gives it.
    """
    return points_from_instances(dots_of(label))


def dots_of(label: np.ndarray) -> np.ndarray:
    """The dots of a point label [H, W] as an instance map: its 8-connected components.

    A component consists of pixels that are not 0. Where dots touch, their values 1, 2, ... may
    still tell them apart.
    """
    count, components = cv2.connectedComponents((label != 0).astype(np.uint8), connectivity=8)
    ids = np.unique(label[label != 0])
    if 1 < count <= len(ids) == ids[-1] and all(_is_connected(label == k) for k in ids):
        return label
    return components


def _is_connected(mask: np.ndarray) -> bool:
    """Whether a mask [H, W] bool is one 8-connected component."""
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] == 2


def sample_points(points: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Partial points: a share `ratio` (0..1) of the points [N, 2], without replacement (D2).

    At least one point is kept if there is any. The points stay in their order.
    """
    count = min(len(points), max(1, round(len(points) * ratio)))
    return points[np.sort(rng.choice(len(points), count, replace=False))]


def distance_to(points: np.ndarray, shape: tuple[int, int], within: float) -> np.ndarray:
    """Distance [H, W] float32 in pixels to the nearest of the points [N, 2], in a square around
    each that has all pixels `within` that distance; inf elsewhere."""
    reach = math.ceil(within)
    squares = np.square(np.arange(-reach, reach + 1, dtype=np.float32))
    around = squares[:, None] + squares  # square of the distance from a point
    nearest = np.full((shape[0] + 2 * reach, shape[1] + 2 * reach), np.inf, np.float32)
    for row, col in points:
        window = nearest[row : row + len(around), col : col + len(around)]
        np.minimum(window, around, out=window)
    return np.sqrt(nearest[reach : reach + shape[0], reach : reach + shape[1]])


def extended_gaussian_mask(
    points: np.ndarray, shape: tuple[int, int], r1: float, r2: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Target of the partial points, and the mask of the pixels whose target is known.

    points [N, 2]: row, column in pixels; r1, r2, sigma in pixels. Returns the target [H, W]
    float32 in 0..1, a Gaussian around each point that ends before r1, and the mask [H, W] bool of
    the disks of radius r2. Farther pixels are unknown, because they may belong to nuclei without a
    point (Qu et al. 2020, Sec. III-A).

    >>> target, known = extended_gaussian_mask(np.array([[0, 1]]), (1, 6), 2, 3, 1.0)
    >>> print(target.round(3))
    [[0.607 1.    0.607 0.    0.    0.   ]]
    >>> print(known.astype(int))
    [[1 1 1 1 1 0]]
    """
    distance = distance_to(points, shape, max(r1, r2))
    target = np.exp(-np.square(distance) / (2 * sigma**2))
    target[(target < PEAK_CUTOFF) | (distance >= r1)] = 0
    return target, distance <= r2


def weight_map(
    target: np.ndarray,
    known: np.ndarray,
    background: np.ndarray,
    inside: np.ndarray,
    peak_weight: float,
    unknown_weight: float = 0.0,
) -> np.ndarray:
    """Weight [H, W] float32 of each pixel in the loss.

    It is `peak_weight` where the target is over 0, otherwise 1 where the target is known or
    background, otherwise `unknown_weight`, and 0 outside the image (D9). target and known [H, W]
    are from `extended_gaussian_mask`; background [H, W] bool: background that self-training has
    propagated; inside [H, W] bool: pixels of the image and not of its padding.
    """
    weight = np.where(known | background, np.float32(1), np.float32(unknown_weight))
    weight[target > 0] = peak_weight
    return weight * inside
