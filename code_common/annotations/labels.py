"""Point labels and instance maps of annotations, and the words that say what they hold."""

import re
from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage

from code_common.annotations.formats import Annotations, draw, object_places, outline_pixels
from code_common.annotations.geometry import held_by, in_its_box
from code_common.errors import InputError


def counted(number: int, what: str) -> str:
    """'1 point', '2 points', '2 points without an outline'; what follows the noun stays."""
    noun, rest = re.fullmatch(r"(.*?)((?: \(| of | without | among | outside ).*|)", what).groups()
    if number != 1:
        noun = {"nucleus": "nuclei", "box": "boxes"}.get(noun, f"{noun}s")
    return f"{number} {noun}{rest}"


def listed(numbers: dict[str, int]) -> str:
    """'2 points, 1 line'."""
    return ", ".join(counted(number, what) for what, number in numbers.items() if number)


def objects_of(annotations: Annotations) -> dict[str, int]:
    """How many objects of each kind there are."""
    return {
        "outline": len(annotations.outlines),
        "mask": len(annotations.masks),
        "box": len(annotations.boxes),
        "point": len(annotations.points),
    }


FEW = 0.1  # share of the points that may lie beside another, twice marked


def point_pixels(annotations: Annotations, shape: tuple[int, int], where: str) -> np.ndarray:
    """Pixels [N, 2] (row, column) of an image [H, W]: of each point, and of each outline's centre.

    That is the outline's pixel nearest to its centre, where the centre lies beside it. No two
    touch.

    Outlines with their centre outside of the image, outlines around a point, and objects in the
    pixel of another one or beside it are counted as left out. Where there are points, a note says
    how many pixels are those of outlines. where: what an error names. Raises InputError for a point
    outside of the image, for outlines that all have their centre outside, and for many points that
    touch.
    """
    given = np.array(annotations.points).reshape(-1, 2)
    annotations = _without_pointed(annotations, given)
    centres = np.array(object_places(annotations, shape)).reshape(-1, 2)
    pixels = np.floor(centres[:, ::-1]).astype(np.int64)
    pixels -= centres[:, ::-1] == shape  # on the last edge
    inside = ((pixels >= 0) & (pixels < shape)).all(1)
    points = len(annotations.points)  # they come first
    if not inside[:points].all() or (len(inside) and not inside.any()):
        raise InputError(f"{where}: {_outside(centres, inside, points, shape)}")
    annotations.left_out["object (middle outside of the image)"] += int((~inside).sum())
    pixels = pixels[inside]
    different = np.unique(pixels, axis=0)
    annotations.left_out["point (in the pixel of another)"] += len(pixels) - len(different)
    taken: set[tuple[int, int]] = set()
    touching = []
    for row, col in different.tolist():
        if any((row + y, col + x) in taken for y in (-1, 0, 1) for x in (-1, 0, 1)):
            touching.append((col + 0.5, row + 0.5))
        else:
            taken.add((row, col))
    if len(touching) > FEW * len(different):  # of another scale, say
        x, y = touching[0]
        raise InputError(f"{where}: two points touch at ({x:g}, {y:g}); they would count as one")
    annotations.left_out["point (beside another)"] += len(touching)
    middles = len(taken.difference(map(tuple, pixels[:points].tolist())))
    if points and middles:
        what = "is the middle of an outline" if middles == 1 else "are the middles of outlines"
        annotations.notes.append(f"{middles} of them {what} or box{'es' * (middles > 1)}")
    return np.array(sorted(taken), np.int64).reshape(-1, 2)


def _without_pointed(annotations: Annotations, given: np.ndarray) -> Annotations:
    """The annotations without outlines, boxes and masks that hold a given point [N, 2] (x, y).

    Both are of one nucleus. These are counted as left out.
    """
    if not len(given):
        return annotations
    columns, rows = np.floor(given).astype(np.int64).T
    spots = set(zip(rows.tolist(), columns.tolist(), strict=True))
    kept = {
        "outline": [o for o in annotations.outlines if not held_by(o, given)],
        "box": [
            (x0, y0, x1, y1)
            for x0, y0, x1, y1 in annotations.boxes
            if not ((given >= (x0, y0)) & (given <= (x1, y1))).all(1).any()
        ],
        "mask": [m for m in annotations.masks if spots.isdisjoint(map(tuple, m.tolist()))],
    }
    for what, number in objects_of(annotations).items():
        if what in kept:
            annotations.left_out[f"{what} (around a point)"] += number - len(kept[what])
    return replace(annotations, outlines=kept["outline"], boxes=kept["box"], masks=kept["mask"])


def point_label(annotations: Annotations, shape: tuple[int, int], where: str) -> np.ndarray:
    """Point label uint8 [H, W]: 255 at each of the `point_pixels`."""
    label = np.zeros(shape, np.uint8)
    label[tuple(point_pixels(annotations, shape, where).T)] = 255
    return label


def _outside(centres: np.ndarray, inside: np.ndarray, points: int, shape: tuple[int, int]) -> str:
    """What lies outside of the image: points first, then middles of outlines."""
    of_points = not inside[:points].all()
    wrong = ~inside[:points] if of_points else ~inside
    x, y = centres[: len(wrong)][wrong][0]
    what = "points" if of_points else "middles of outlines"
    swapped = ((centres >= 0) & (centres < shape)).all()
    hint = "; are x and y swapped?" if swapped else ""
    return (
        f"{wrong.sum()} of {len(wrong)} {what} lie outside of its image of "
        f"{shape[1]} x {shape[0]}, the first at ({x:g}, {y:g}){hint}"
    )


def instance_map(annotations: Annotations, shape: tuple[int, int], where: str) -> np.ndarray:
    """Instance map int32 [H, W] of outlines and masks; what covers no pixel is counted.

    Raises InputError where objects have no outline at all.
    """
    if annotations.boxes:
        raise InputError(
            f"{where}: {len(annotations.boxes)} of {annotations.count()} objects are boxes without "
            "an outline; expected an outline for each nucleus (import them as points)"
        )
    nuclei = object_pixels(annotations, shape)
    if not nuclei and annotations.points:
        held = counted(len(annotations.points), "point")
        raise InputError(f"{where}: {held}, no outline in it; expected one for each nucleus")
    annotations.left_out["point without an outline"] += len(annotations.points)
    instances = draw(nuclei, shape)
    covered = count_covered(nuclei, instances)
    if covered:
        lie = "nucleus lies" if covered == 1 else "nuclei lie"
        annotations.notes.append(
            f"{covered} {lie} for the most part below others; if drawn twice, delete one of both"
        )
    empty = sum(len(pixels) == 0 for pixels in nuclei)
    hidden = len(nuclei) - empty - count_ids(instances)
    if nuclei and empty + hidden == len(nuclei):
        held = listed(objects_of(annotations))
        raise InputError(f"{where}: {held}, none of which covers a pixel of its image")
    annotations.left_out["outline (no pixel of the image in it)"] += empty
    annotations.left_out["outline (below others)"] += hidden
    return instances


def object_pixels(annotations: Annotations, shape: tuple[int, int]) -> list[np.ndarray]:
    """The pixels [N, 2] (row, column) in an image [H, W] of each outline, then of each mask."""
    nuclei = [outline_pixels(outline, shape) for outline in annotations.outlines]
    for pixels in annotations.masks:
        inside = ((pixels >= 0) & (pixels < shape)).all(1)
        nuclei.append(pixels[inside])
    return nuclei


def object_masks(annotations: Annotations, shape: tuple[int, int]) -> list[np.ndarray]:
    """The mask uint8 of each outline and mask that has a pixel in the image, within its box."""
    return [in_its_box(pixels) for pixels in object_pixels(annotations, shape) if len(pixels)]


def count_covered(nuclei: list[np.ndarray], instances: np.ndarray) -> int:
    """How many nuclei show less than half of their pixels [N, 2], but any, in their map [H, W]."""
    areas = np.array([len(pixels) for pixels in nuclei], np.int64)
    shown = np.bincount(instances.ravel(), minlength=len(nuclei) + 1)[1:]
    return int(((shown > 0) & (2 * shown < areas)).sum())


def count_ids(instances: np.ndarray) -> int:
    """How many nuclei an instance map [H, W] holds."""
    return len(np.unique(instances[instances > 0]))


def nucleus_masks(instances: np.ndarray) -> list[np.ndarray]:
    """The mask uint8 of each nucleus of an instance map [H, W], within its bounding box."""
    values, numbered = np.unique(instances, return_inverse=True)  # ids may be very large
    numbered = numbered.reshape(instances.shape) + int(values[0] > 0)
    boxes = ndimage.find_objects(numbered)
    return [(numbered[box] == k).astype(np.uint8) for k, box in enumerate(boxes, 1)]


def count_split(masks: list[np.ndarray]) -> int:
    """How many of the masks [h, w] of nuclei lie in several 8-connected pieces."""
    return sum(cv2.connectedComponents(mask, connectivity=8)[0] > 2 for mask in masks)


def told_of_pieces(masks: list[np.ndarray]) -> list[str]:
    """A note where masks [h, w] of nuclei lie in several pieces; none where all are whole."""
    split = count_split(masks)
    return [f"{split} {'lies' if split == 1 else 'lie'} in several pieces"] if split else []
