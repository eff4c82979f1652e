"""From a probability map to detections (Qu et al. 2020, Sec. III-A)."""

import cv2
import numpy as np
from scipy import ndimage
from skimage.morphology import h_maxima

from code_common.tiling import predict_image

PROMINENCE = 0.3  # how far the probability must fall between two peaks of one component


def predict_prob(network, image: np.ndarray, tiling: dict) -> np.ndarray:
    """Probability [H, W] in 0..1 that a pixel is near a nucleus' centre; image [H, W, 3] uint8."""
    return predict_image(network, image, lambda logits: logits.sigmoid(), **tiling)[0]


def _peaks(prob: np.ndarray) -> np.ndarray:
    """Maxima [N, 2] of the smoothed probability that stand out: a plateau has one, not many."""
    maxima = h_maxima(ndimage.gaussian_filter(prob, 1.0), PROMINENCE)
    parts, count = ndimage.label(maxima, structure=np.ones((3, 3)))
    centres = ndimage.center_of_mass(maxima, parts, range(1, count + 1))
    return np.rint(np.array(centres).reshape(-1, 2)).astype(np.int64)


def detect(prob: np.ndarray, threshold: float, min_area: int, max_area: int) -> np.ndarray:
    """Detections [N, 2] (row, column) of a probability map [H, W].

    Each component over `threshold` of at least `min_area` square pixels is one detection, at its
    centroid, or the component's pixel nearest to it (D12). A component larger than `max_area` is
    several nuclei that touch (D11): it has a detection at each peak of the probability.
    """
    mask = (prob > threshold).astype(np.uint8)
    count, components, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    points = []
    for k in range(1, count):
        if area[k] < min_area:
            continue
        x, y, w, h, _ = stats[k]
        own = components[y : y + h, x : x + w] == k
        if area[k] > max_area:
            points.extend(_peaks(prob[y : y + h, x : x + w] * own) + (y, x))
            continue
        point = np.rint(centroids[k][::-1]).astype(int) - (y, x)
        if not own[tuple(point)]:
            pixels = np.argwhere(own)
            point = pixels[((pixels - point) ** 2).sum(1).argmin()]
        points.append(point + (y, x))
    return np.array(points, dtype=np.int64).reshape(-1, 2)
