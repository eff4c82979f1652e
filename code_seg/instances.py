"""From a nuclei mask to an instance map: connected components, alone or with detected points."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from code_common.distance import distance_transform
from code_common.streaming import Components, component_masks
from code_seg.morphology import fill_holes, remove_small

# components: the paper's; points: these, split among the detections in them; detected: of "points"
# those that a detection or their size confirms.
METHODS = ("components", "points", "detected")
LARGE = 10  # times the smallest area: as large as a nucleus, where the smallest is a speck


def components(prob: np.ndarray, min_area: int) -> np.ndarray:
    """Instance map int32 [H, W] of a nucleus probability map [H, W], as in the paper.

    More probable than not; components under `min_area` square pixels are dropped, holes filled.
    """
    mask = fill_holes(remove_small((prob > 0.5).astype(np.uint8), min_area))
    return cv2.connectedComponents(mask, connectivity=8)[1].astype(np.int32)


def instances_in_parts(
    found: Components,
    read_mask: Callable[[int, int, int, int], np.ndarray],
    points: np.ndarray | None,
    min_area: int,
    taken: Callable[[int, int], bool],
    only_detected: bool = False,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The nuclei of a mask of any size: (first row, first column, instance map int32 of a box).

    As `components` and, given points [N, 2], `split_by_points` would give them for the whole mask,
    and with `only_detected` as `confirmed` then does.
    `taken(row, column)` says whether a nucleus that was given before covers a pixel: so it does
    where a component lies in the hole of another.
    """
    found = found.at_least(min_area)
    if points is not None:
        points = points[np.argsort(points[:, 0], kind="stable")]
    masks = component_masks(found, read_mask)
    for first, (row, col, own) in zip(found.firsts.tolist(), masks, strict=True):
        if taken(*first):
            continue
        instances = fill_holes(own.astype(np.uint8)).astype(np.int32)
        if points is not None:
            start, end = np.searchsorted(points[:, 0], [row, row + len(own)])
            own_points = points[start:end] - (row, col)
            instances = split_by_points(instances, own_points, min_area)
            if only_detected:
                instances = confirmed(instances, own_points, min_area)
        yield row, col, instances


def _within(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return points[((points >= 0) & (points < shape)).all(1)]


def confirmed(instances: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """The instances [H, W] that hold one of the points [N, 2] or are LARGE times `min_area` large.

    They keep their ids; elsewhere is 0. What network and detector find independently of each other
    is seldom a stain or a fold, and what is as large as a nucleus is seldom a speck.
    """
    points = _within(points, instances.shape)
    kept = np.bincount(instances.ravel(), minlength=1) >= LARGE * min_area
    kept[instances[points[:, 0], points[:, 1]]] = True
    return np.where(kept[instances], instances, 0)


def split_by_points(instances: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """Instance map in which every component that holds several points is split among them (D13).

    instances [H, W] of connected components; points [N, 2] (row, column), those outside of the
    mask count for nothing. The cut is a watershed on the distance to the background, so it runs
    through the necks. A piece under `min_area` square pixels leaves its pixels to its neighbours.
    """
    points = _within(points, instances.shape)
    home = instances[points[:, 0], points[:, 1]]
    several = np.flatnonzero(np.bincount(home[home > 0], minlength=2) > 1)
    out, last = instances.copy(), int(instances.max(initial=0))
    boxes = ndimage.find_objects(instances)
    for label in several.tolist():
        box = boxes[label - 1]
        own = np.pad(instances[box] == label, 1)
        depth = distance_transform(own.astype(np.uint8))
        inside = points[home == label] - (box[0].start - 1, box[1].start - 1)
        while True:
            markers = np.zeros(own.shape, np.int32)
            markers[inside[:, 0], inside[:, 1]] = np.arange(1, len(inside) + 1)
            pieces = watershed(-depth, markers, mask=own)
            areas = np.bincount(pieces.ravel(), minlength=len(inside) + 1)[1:]
            if len(inside) == 1 or areas.min() >= min_area:
                break
            inside = np.delete(inside, areas.argmin(), axis=0)
        pieces = pieces[1:-1, 1:-1]
        out[box][pieces > 1] = pieces[pieces > 1] + (last - 1)
        last += len(inside) - 1
    return out
