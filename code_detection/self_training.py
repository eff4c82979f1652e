"""Self-training with background propagation (Qu et al. 2020, Sec. III-A-2)."""

import cv2
import numpy as np

from code_detection.labels import distance_to


def propagate_background(
    prob: np.ndarray,
    annotated: np.ndarray,
    background_below: float,
    merged_above: float,
    max_area: int,
    r1: float,
) -> np.ndarray:
    """Background label [H, W] bool for the next round from this round's probability map.

    prob [H, W] in 0..1; annotated [N, 2]: row, column. Background is where the probability is
    under `background_below`, and components over `merged_above` larger than `max_area` square
    pixels, which are no single nucleus. The surroundings (r1) of an annotated point, and a
    component that holds one, never become background (D7).
    """
    background = prob < background_below
    merged = (prob > merged_above).astype(np.uint8)
    _, components, stats, _ = cv2.connectedComponentsWithStats(merged, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] > max_area
    large[0] = False
    large[components[annotated[:, 0], annotated[:, 1]]] = False
    background |= large[components]
    return background & (distance_to(annotated, prob.shape) >= r1)
