"""Disks, holes and small components of masks, with the fast functions of OpenCV."""

import cv2
import numpy as np


def disk(radius: int) -> np.ndarray:
    """Disk [2r + 1, 2r + 1] uint8 of the pixels at most `radius` pixels from the centre."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def dilated_points(points: np.ndarray, shape: tuple[int, int], radius: int) -> np.ndarray:
    """Mask [H, W] bool of the pixels at most `radius` pixels from one of the points [N, 2]."""
    mask = np.zeros(shape, np.uint8)
    mask[points[:, 0], points[:, 1]] = 1
    return cv2.dilate(mask, disk(radius)) > 0


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Mask [H, W] uint8 (0, 1) with its holes filled.

    A hole is background that is not 4-connected with the border of the image.
    """
    empty = np.pad(1 - mask, 1, constant_values=1)
    _, parts = cv2.connectedComponents(empty, connectivity=4)
    return (parts != parts[0, 0])[1:-1, 1:-1].astype(np.uint8)


def remove_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Mask [H, W] uint8 without its 8-connected components of fewer than `min_area` pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False
    return keep[parts].astype(np.uint8)
