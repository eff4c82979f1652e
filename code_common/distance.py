"""The exact Euclidean distance transform, with the same bits on every run."""

import cv2
import numpy as np


def distance_transform(free: np.ndarray) -> np.ndarray:
    """Distance [H, W] float32 in pixels of each pixel to the nearest one that is 0.

    free [H, W] uint8 with at least one 0. The distances of OpenCV differ in their last bits from
    run to run; their squares are whole numbers, which takes that away.
    """
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(distance)))
