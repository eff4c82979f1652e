"""Disks, holes and small components of masks, with the fast functions of OpenCV."""

import cv2
import numpy as np

from code_common.arrays import framed


def disk(radius: int) -> np.ndarray:
    """Disk [2r + 1, 2r + 1] uint8 of the pixels at most `radius` pixels from the centre."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def dilated_points(points: np.ndarray, shape: tuple[int, int], radius: int) -> np.ndarray:
    """Mask [H, W] bool of the pixels at most `radius` pixels from one of the points [N, 2]."""
    mask = np.zeros(shape, np.uint8)
    mask[points[:, 0], points[:, 1]] = 1
    return cv2.dilate(mask, disk(radius)) > 0


def fill_own_holes(mask: np.ndarray) -> np.ndarray:
    """Mask [H, W] uint8 (0, 1) with the holes of its nuclei filled, and no lumen.

    A hole is filled if it borders on one 8-connected component alone, which is no smaller. What
    holds other components is no hole in a nucleus: nuclei may stand in a ring, and a tile may have
    a frame.
    """
    _, parts, part_stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    empty = framed(1 - mask, 1)
    count, holes, hole_stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=4)
    outside, holes = holes[0, 0], holes[1:-1, 1:-1]
    if count == 2:  # no background but the outside
        return mask
    pairs = []  # hole and component beside it, as one number
    for axis in (0, 1):
        first, last = (slice(0, -1), slice(1, None)), (slice(1, None), slice(0, -1))
        for a, b in zip(first, last, strict=True):
            hole, part = (np.moveaxis(m, axis, 0)[s] for m, s in ((holes, a), (parts, b)))
            beside = (hole > 0) & (hole != outside) & (part > 0)
            pairs.append(hole[beside].astype(np.int64) * len(part_stats) + part[beside])
    borders = np.stack(np.divmod(np.unique(np.concatenate(pairs)), len(part_stats)), 1)
    number = np.bincount(borders[:, 0], minlength=len(hole_stats))
    fits = (
        part_stats[borders[:, 1], cv2.CC_STAT_AREA] >= hole_stats[borders[:, 0], cv2.CC_STAT_AREA]
    )
    is_filled = np.zeros(len(hole_stats), bool)
    is_filled[borders[fits & (number[borders[:, 0]] == 1), 0]] = True
    return mask | is_filled[holes].astype(np.uint8)


def remove_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Mask [H, W] uint8 without its 8-connected components of fewer than `min_area` pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False
    return keep[parts].astype(np.uint8)
