"""Point labels and instance maps of annotations, and the words that say what they hold."""

import numpy as np

from code_common.errors import InputError
from data.annotations.formats import Annotations, draw, object_centres, outline_pixels


def counted(number: int, what: str) -> str:
    """'1 point', '2 points'; a note in brackets stays behind."""
    noun, bracket, note = what.partition(" (")
    if number != 1:
        first, of, rest = noun.partition(" of ")
        plural = "nuclei" if first == "nucleus" else "boxes" if first == "box" else f"{first}s"
        noun = plural + of + rest
    return f"{number} {noun}{bracket}{note}"


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


def point_label(annotations: Annotations, shape: tuple[int, int], where: str) -> np.ndarray:
    """Point label uint8 [H, W]: 255 at the pixel of each point and of each outline's centre.

    where: what an error names. Raises InputError for a point outside of the image, and for two
    that touch.
    """
    label = np.zeros(shape, np.uint8)
    for x, y in object_centres(annotations):
        row, col = int(np.floor(y)), int(np.floor(x))
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            raise InputError(
                f"{where}: the point ({x:g}, {y:g}) lies outside of its image of "
                f"{shape[1]} x {shape[0]}"
            )
        if label[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2].any():
            raise InputError(
                f"{where}: two points touch at ({x:g}, {y:g}); they would count as one"
            )
        label[row, col] = 255
    return label


def instance_map(annotations: Annotations, shape: tuple[int, int], where: str) -> np.ndarray:
    """Instance map int32 [H, W] of outlines and masks; what covers no pixel is counted.

    Raises InputError where objects have no outline at all.
    """
    if annotations.boxes:
        raise InputError(
            f"{where}: {len(annotations.boxes)} of {annotations.count()} objects are boxes without "
            "an outline; expected an outline for each nucleus (import them as points)"
        )
    nuclei = [outline_pixels(outline, shape) for outline in annotations.outlines]
    for pixels in annotations.masks:
        inside = ((pixels >= 0) & (pixels < shape)).all(1)
        nuclei.append(pixels[inside])
    if not nuclei and annotations.points:
        held = counted(len(annotations.points), "point")
        raise InputError(f"{where}: {held}, no outline in it; expected one for each nucleus")
    annotations.left_out["point without an outline"] += len(annotations.points)
    instances = draw(nuclei, shape)
    hidden = len(nuclei) - count_ids(instances)
    if nuclei and hidden == len(nuclei):
        held = listed(objects_of(annotations))
        raise InputError(f"{where}: {held}, none of which covers a pixel of its image")
    annotations.left_out["outline that covers no pixel of its own"] += hidden
    return instances


def count_ids(instances: np.ndarray) -> int:
    """How many nuclei an instance map [H, W] holds."""
    return len(np.unique(instances[instances > 0]))
