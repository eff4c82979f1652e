"""From a probability map to detections (Qu et al. 2020, Sec. III-A)."""

import cv2
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max

from code_common.tiling import predict_image


def predict_prob(network, image: np.ndarray, tiling: dict) -> np.ndarray:
    """Probability [H, W] in 0..1 that a pixel is near a nucleus' centre; image [H, W, 3] uint8."""
    return predict_image(network, image, lambda logits: logits.sigmoid(), **tiling)[0]


def detect(
    prob: np.ndarray, threshold: float, min_area: int, max_area: int, min_distance: float
) -> np.ndarray:
    """Detections [N, 2] (row, column) of a probability map [H, W].

    Each component over `threshold` of at least `min_area` square pixels is one detection, at its
    centroid, or the component's pixel nearest to it (D12). A component larger than `max_area` is
    several nuclei that touch (D11): it has a detection at each maximum of the smoothed
    probability, at least `min_distance` pixels apart.
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
            smooth = ndimage.gaussian_filter(prob[y : y + h, x : x + w] * own, 1.5)
            peaks = peak_local_max(
                smooth,
                min_distance=max(1, round(min_distance)),
                labels=own.astype(np.uint8),
                exclude_border=False,
            )
            if len(peaks):
                points.extend(peaks + (y, x))
                continue
        point = np.rint(centroids[k][::-1]).astype(int) - (y, x)
        if not own[tuple(point)]:
            pixels = np.argwhere(own)
            point = pixels[((pixels - point) ** 2).sum(1).argmin()]
        points.append(point + (y, x))
    return np.array(points, dtype=np.int64).reshape(-1, 2)
