"""From a probability map to detections (Qu et al. 2020, Sec. III-A)."""

from collections.abc import Iterator

import cv2
import numpy as np
from scipy import ndimage
from skimage.morphology import h_maxima

from code_common.inference.streaming import Components, ReadPart, component_masks

PROMINENCE = 0.3  # how far the probability must fall between two peaks of one component


def _peaks(prob: np.ndarray) -> np.ndarray:
    """Peaks [N, 2] of the smoothed probability [h, w]. A plateau has one peak."""
    maxima = h_maxima(ndimage.gaussian_filter(prob, 1.0), PROMINENCE)
    plateaus, count = ndimage.label(maxima, structure=np.ones((3, 3)))
    centres = ndimage.center_of_mass(maxima, plateaus, range(1, count + 1))
    return np.rint(np.array(centres).reshape(-1, 2)).astype(np.int64)


def component_points(
    prob: np.ndarray, component: np.ndarray, corner: tuple[int, int], max_area: int
) -> np.ndarray:
    """Detections [N, 2] (row, column in the image) of one component of a probability map.

    prob [h, w]: probabilities in the component's bounding box; component [h, w] bool: its pixels;
    corner: row and column of the box's first pixel. The detection is the centroid or, if that lies
    outside, the pixel nearest to it (D12). A component of more than `max_area` pixels consists of
    several nuclei (D11): it has a detection at each peak of the probability.
    """
    pixels = np.argwhere(component) + corner
    if len(pixels) > max_area:
        return _peaks(prob * component) + corner
    point = np.rint(pixels.mean(0)).astype(np.int64)
    if not component[tuple(point - corner)]:
        point = pixels[((pixels - point) ** 2).sum(1).argmin()]
    return point[None]


def detect(prob: np.ndarray, threshold: float, min_area: int, max_area: int) -> np.ndarray:
    """Detections [N, 2] (row, column) of a probability map [H, W] in 0..1.

    Components are the 8-connected pixels over `threshold`. Those under `min_area` pixels are
    dropped. `component_points` gives the detections of the others.
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
    components: Components,
    read_mask: ReadPart,
    read_prob: ReadPart,
    min_area: int,
    max_area: int,
) -> Iterator[np.ndarray]:
    """`detect` for a map of any size: the detections [n, 2] of each component.

    `read_mask` reads parts of the mask in which the components were found; `read_prob` reads parts
    of the probability map.
    """
    for row, col, component in component_masks(components.at_least(min_area), read_mask):
        prob = read_prob(row, col, *component.shape)
        yield component_points(prob, component, (row, col), max_area)
