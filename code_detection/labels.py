"""Labels of stage 1: partial points, extended Gaussian mask (Qu et al. 2020, Sec. III-A)."""

import cv2
import numpy as np
from scipy import ndimage

from code_common.arrays import distance_transform

# The Gaussian counts as a peak down to this value: 2.45 sigma, 6.7 px at sigma 2.75. The paper
# draws it to r1; its published numbers come from this cut.
PEAK_CUTOFF = 0.05


def points_from_instances(instances: np.ndarray) -> np.ndarray:
    """One point [N, 2] (row, column) per nucleus of an instance map [H, W], in order of the ids.

    It is the centre of the bounding box, where a person would click, or the nucleus' pixel
    nearest to it where the centre lies outside (D21: crescents, ids of several components).
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


def points_from_map(label: np.ndarray) -> np.ndarray:
    """Points [N, 2] of a point label [H, W]: one per component that is not 0, its middle pixel."""
    count, components = cv2.connectedComponents((label != 0).astype(np.uint8), connectivity=8)
    if count == 1:
        return np.zeros((0, 2), np.int64)
    return points_from_instances(components)


def sample_points(points: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Partial points: a share `ratio` of the points, drawn without replacement (D2).

    At least one point is kept of an image that has any. Returns them in their old order.
    """
    count = min(len(points), max(1, round(len(points) * ratio)))
    return points[np.sort(rng.choice(len(points), count, replace=False))]


def distance_to(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Euclidean distance [H, W] float32 in pixels to the nearest point; inf without points."""
    if len(points) == 0:
        return np.full(shape, np.inf, np.float32)
    free = np.ones(shape, np.uint8)
    free[points[:, 0], points[:, 1]] = 0
    return distance_transform(free)


def extended_gaussian_mask(
    points: np.ndarray, shape: tuple[int, int], r1: float, r2: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Target of the partial points and what is known of it.

    points [N, 2]: row, column in pixels. Returns the target [H, W] float32 in 0..1, a Gaussian
    around each point, and `known` [H, W] bool: the disks of radius r2. Pixels farther than r2
    from every point are not known: nobody said that they are background.
    """
    distance = distance_to(points, shape)
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
    """Weight [H, W] float32 of each pixel in the loss: `peak_weight`, 1, or `unknown_weight`.

    known: the disks around points; background: what self-training propagated; inside: pixels of
    the image, not padding (D9). All [H, W] bool.
    """
    weight = np.where(known | background, np.float32(1), np.float32(unknown_weight))
    weight[target > 0] = peak_weight
    return weight * inside
