"""Instance maps from a mask of nuclei: its connected components, whole or split by points."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from code_common.arrays import distance_transform, fill_holes, framed
from code_common.inference.streaming import Components, ReadPart, component_masks
from code_seg.morphology import fill_own_holes, remove_small


def components(prob: np.ndarray, min_area: int) -> np.ndarray:
    """Instance map int32 [H, W] of a probability map of nuclei [H, W], as in the paper.

    The instances are the 8-connected components over a probability of 0.5. Those under `min_area`
    pixels are dropped. Then holes are filled, but for those that hold nuclei (`fill_own_holes`).
    """
    mask = fill_own_holes(remove_small((prob > 0.5).astype(np.uint8), min_area))
    return cv2.connectedComponents(mask, connectivity=8)[1].astype(np.int32)


def instances_in_parts(
    all_components: Components,
    read_mask: ReadPart,
    divide: Callable[[int, int, np.ndarray], np.ndarray],
    min_area: int,
    taken: Callable[[int, int], bool],
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The nuclei of a mask of any size, component by component.

    Gives (row, column, instance map int32 [h, w]) of each component's bounding box, which begins
    at (row, column). Components under `min_area` pixels are dropped. `divide(row, column, mask)`
    divides a component, a mask [h, w] bool without holes, into nuclei. `taken(row, column)` tells
    whether an earlier nucleus covers a pixel. A component whose first pixel is covered lies in a
    hole of another one and is skipped.
    """
    large = all_components.at_least(min_area)
    masks = component_masks(large, read_mask)
    for first, (row, col, mask) in zip(large.firsts.tolist(), masks, strict=True):
        if not taken(*first):
            around = read_mask(row, col, *mask.shape)
            yield row, col, divide(row, col, _without_holes(mask, around, min_area))


def _without_holes(mask: np.ndarray, around: np.ndarray, min_area: int) -> np.ndarray:
    """A component [h, w] bool whose holes are filled as in `components`.

    around [h, w] bool: all that lies in its box.
    """
    own = mask.astype(np.uint8)
    if np.array_equal(fill_holes(own), own):
        return mask
    others = remove_small((around & ~mask).astype(np.uint8), min_area)
    filled = fill_own_holes(own | others)
    parts = cv2.connectedComponents(filled, connectivity=8)[1]
    return parts == parts.flat[mask.argmax()]


class PointsByRow:
    """Points [N, 2] (row, column) of an image of any size. Those of a part are found quickly."""

    def __init__(self, points: np.ndarray):
        self.points = points[np.argsort(points[:, 0], kind="stable")]

    def within(self, row: int, col: int, shape: tuple[int, int]) -> np.ndarray:
        """The points in a part of `shape` from (row, col), relative to its first pixel."""
        start, end = np.searchsorted(self.points[:, 0], [row, row + shape[0]])
        return within(self.points[start:end] - (row, col), shape)


def within(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The points, of [N, 2], that lie on a map of `shape` (rows, columns)."""
    return points[((points >= 0) & (points < shape)).all(1)]


def cut(mask: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """A mask [H, W] bool divided among the points [N, 2] in it: int32 [H, W] with ids 1 to M.

    M is at most N, and 1 if there is no point. The watershed on the distance to the background
    cuts at the necks. A piece under `min_area` pixels is given to its neighbours.
    """
    if len(points) < 2:
        return mask.astype(np.int32)
    mask, points = framed(mask.astype(np.uint8)), points + 1
    depth = distance_transform(mask)
    while True:
        markers = np.zeros(mask.shape, np.int32)
        markers[points[:, 0], points[:, 1]] = np.arange(1, len(points) + 1)
        pieces = watershed(-depth, markers, mask=mask)
        areas = np.bincount(pieces.ravel(), minlength=len(points) + 1)[1:]
        if len(points) == 1 or areas.min() >= min_area:
            return pieces[1:-1, 1:-1]
        points = np.delete(points, areas.argmin(), axis=0)


def split_by_points(instances: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """The instance map [H, W] with each component that holds several points split (D13).

    instances [H, W]: connected components; points [N, 2]: row, column, those outside the
    components are ignored. No piece of a split has fewer than `min_area` pixels.
    """
    points = within(points, instances.shape)
    id_of_point = instances[points[:, 0], points[:, 1]]
    several = np.flatnonzero(np.bincount(id_of_point[id_of_point > 0], minlength=2) > 1)
    out, last = instances.copy(), int(instances.max(initial=0))
    boxes = ndimage.find_objects(instances)
    for label in several.tolist():
        box = boxes[label - 1]
        inside = points[id_of_point == label] - (box[0].start, box[1].start)
        pieces = cut(instances[box] == label, inside, min_area)
        out[box][pieces > 1] = pieces[pieces > 1] + (last - 1)
        last += int(pieces.max()) - 1
    return out
