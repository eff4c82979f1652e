"""From a nuclei mask to an instance map: connected components, alone or with detected points."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from code_common.arrays import distance_transform
from code_common.errors import InputError
from code_common.inference.streaming import Components, component_masks
from code_seg.morphology import fill_holes, remove_small

# components: the paper's; points: these, split among the detections in them; convex: cut where they
# are not convex, completed, and those dropped that too little speaks for (code_seg/convex.py).
METHODS = ("components", "points", "convex")


def check_method(method: str, path: Path) -> None:
    """Raise InputError where a run, of another version, chose a method that is not there."""
    if method not in METHODS:
        raise InputError(
            f"{path}: chose instances by {method}, which this version has not; give --instances "
            + ", ".join(METHODS[:-1])
            + f" or {METHODS[-1]}"
        )


def components(prob: np.ndarray, min_area: int) -> np.ndarray:
    """Instance map int32 [H, W] of a nucleus probability map [H, W], as in the paper.

    More probable than not; components under `min_area` square pixels are dropped, holes filled.
    """
    mask = fill_holes(remove_small((prob > 0.5).astype(np.uint8), min_area))
    return cv2.connectedComponents(mask, connectivity=8)[1].astype(np.int32)


def instances_in_parts(
    found: Components,
    read_mask: Callable[[int, int, int, int], np.ndarray],
    divide: Callable[[int, int, np.ndarray], np.ndarray],
    min_area: int,
    taken: Callable[[int, int], bool],
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The nuclei of a mask of any size: (first row, first column, instance map int32 of a box).

    `divide(row, column, mask)` makes nuclei of a component, bool [h, w] and without holes, whose
    box begins there. `taken(row, column)` says whether a nucleus that was given before covers a
    pixel: so it does where a component lies in the hole of another.
    """
    found = found.at_least(min_area)
    masks = component_masks(found, read_mask)
    for first, (row, col, own) in zip(found.firsts.tolist(), masks, strict=True):
        if not taken(*first):
            yield row, col, divide(row, col, fill_holes(own.astype(np.uint8)) > 0)


class PointsByRow:
    """Points [N, 2] of an image of any size, to be asked for those of a part of it."""

    def __init__(self, points: np.ndarray):
        self.points = points[np.argsort(points[:, 0], kind="stable")]

    def within(self, row: int, col: int, shape: tuple[int, int]) -> np.ndarray:
        """Those of the part of that shape from (row, column), as places in it."""
        start, end = np.searchsorted(self.points[:, 0], [row, row + shape[0]])
        return within(self.points[start:end] - (row, col), shape)


def within(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Those of the points [N, 2] that lie on a map of that shape."""
    return points[((points >= 0) & (points < shape)).all(1)]


def cut(mask: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """A mask [H, W] bool divided among the points [N, 2] in it: int32, 1 to M <= max(N, 1).

    The cut is a watershed on the distance to the background, so it runs through the necks. A piece
    under `min_area` square pixels leaves its pixels to its neighbours.
    """
    if len(points) < 2:
        return mask.astype(np.int32)
    own, points = np.pad(mask, 1), points + 1
    depth = distance_transform(own.astype(np.uint8))
    while True:
        markers = np.zeros(own.shape, np.int32)
        markers[points[:, 0], points[:, 1]] = np.arange(1, len(points) + 1)
        pieces = watershed(-depth, markers, mask=own)
        areas = np.bincount(pieces.ravel(), minlength=len(points) + 1)[1:]
        if len(points) == 1 or areas.min() >= min_area:
            return pieces[1:-1, 1:-1]
        points = np.delete(points, areas.argmin(), axis=0)


def split_by_points(instances: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """Instance map in which every component that holds several points is split among them (D13).

    instances [H, W] of connected components; points [N, 2] (row, column), those outside of the
    mask count for nothing; no piece is under `min_area` square pixels.
    """
    points = within(points, instances.shape)
    home = instances[points[:, 0], points[:, 1]]
    several = np.flatnonzero(np.bincount(home[home > 0], minlength=2) > 1)
    out, last = instances.copy(), int(instances.max(initial=0))
    boxes = ndimage.find_objects(instances)
    for label in several.tolist():
        box = boxes[label - 1]
        inside = points[home == label] - (box[0].start, box[1].start)
        pieces = cut(instances[box] == label, inside, min_area)
        out[box][pieces > 1] = pieces[pieces > 1] + (last - 1)
        last += int(pieces.max()) - 1
    return out
