"""From a probability map to detections (Qu et al. 2020, Sec. III-A)."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy import ndimage
from skimage.morphology import h_maxima

from code_common.inference.streaming import Components, component_masks

PROMINENCE = 0.3  # how far the probability must fall between two peaks of one component


def _peaks(prob: np.ndarray) -> np.ndarray:
    """Maxima [N, 2] of the smoothed probability that stand out: a plateau has one, not many."""
    maxima = h_maxima(ndimage.gaussian_filter(prob, 1.0), PROMINENCE)
    parts, count = ndimage.label(maxima, structure=np.ones((3, 3)))
    centres = ndimage.center_of_mass(maxima, parts, range(1, count + 1))
    return np.rint(np.array(centres).reshape(-1, 2)).astype(np.int64)


def component_points(
    prob: np.ndarray, own: np.ndarray, corner: tuple[int, int], max_area: int
) -> np.ndarray:
    """Detections [N, 2] (row, column in the image) of one component.

    prob [h, w] and own [h, w] bool, which of its pixels belong to it, are those of its box, whose
    first pixel is `corner`. The detection is the centroid, or the component's pixel nearest to it
    (D12). A component larger than `max_area` square pixels is several nuclei that touch (D11): it
    has a detection at each peak of the probability.
    """
    pixels = np.argwhere(own) + corner
    if len(pixels) > max_area:
        return _peaks(prob * own) + corner
    point = np.rint(pixels.mean(0)).astype(np.int64)
    if not own[tuple(point - corner)]:
        point = pixels[((pixels - point) ** 2).sum(1).argmin()]
    return point[None]


def detect(prob: np.ndarray, threshold: float, min_area: int, max_area: int) -> np.ndarray:
    """Detections [N, 2] (row, column) of a probability map [H, W].

    Those of each component over `threshold` of at least `min_area` square pixels.
    """
    mask = (prob > threshold).astype(np.uint8)
    count, components, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    points = [np.zeros((0, 2), np.int64)]
    for k in range(1, count):
        x, y, w, h, area = stats[k].tolist()
        if area >= min_area:
            box = slice(y, y + h), slice(x, x + w)
            points.append(component_points(prob[box], components[box] == k, (y, x), max_area))
    return np.concatenate(points)


def detect_in_parts(
    found: Components,
    read_mask: Callable[[int, int, int, int], np.ndarray],
    read_prob: Callable[[int, int, int, int], np.ndarray],
    min_area: int,
    max_area: int,
) -> Iterator[np.ndarray]:
    """The detections [n, 2] of each component of a map of any size; see `detect`.

    `read_mask(row, col, rows, cols)` gives a part of the mask that the components were found in,
    `read_prob` of the probability map.
    """
    for row, col, own in component_masks(found.at_least(min_area), read_mask):
        yield component_points(read_prob(row, col, *own.shape), own, (row, col), max_area)
