"""Whether two files of annotations of one image hold the same nuclei."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from code_common.annotations.choice import Choice
from code_common.annotations.formats import draw, read_annotations, read_array, without_regions
from code_common.annotations.labels import count_ids, object_pixels
from code_common.annotations.of_image import is_array
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.images import image_shape

WITHIN = 1.0  # pixels that a point may lie apart in two files, of which one is rounded


def refuse_different(
    image: ImageFiles, source: Path, others: Sequence[Path], kind: str, choice: Choice
) -> None:
    """Raise InputError where a file that is passed over for `source` holds other nuclei.

    It may hold what a user has corrected. kind: masks or points, as wanted. A file that does not
    hold this kind, or cannot be read, is no such file.
    """
    if choice.classes is not None:  # a map has none
        return
    for other in others:
        try:
            if kind == "points":
                same = _near(*(_points(path, image, choice) for path in (source, other)))
            else:
                same = any(
                    _alike(*(_number(path, image, choice, drawn) for path in (source, other)))
                    for drawn in (False, True)  # most are told without drawing them
                )
        except InputError:  # that of `source` is told when it is imported
            continue
        if not same:
            raise InputError(
                f"{source.parent}: {source.name} and {other.name} hold different nuclei of one "
                "image; keep one of them"
            )


def _points(path: Path, image: ImageFiles, choice: Choice) -> np.ndarray | None:
    """The points [N, 2] (x, y) of a file; None for one of outlines or masks."""
    if is_array(path):
        return None
    annotations = read_annotations(path, image.image.name, (0, 0), choice)
    held = annotations.outlines or annotations.masks or annotations.boxes
    return None if held else np.reshape(annotations.points, (-1, 2))


def _near(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Whether points [N, 2] are as many, and each lies near one of the others."""
    if first is None or second is None:
        return True
    if not len(first) or len(first) != len(second):
        return len(first) == len(second)
    apart = [KDTree(a).query(b)[0].max() for a, b in ((first, second), (second, first))]
    return max(apart) <= WITHIN


def _alike(first: int | None, second: int | None) -> bool:
    return first is None or second is None or first == second


def _number(path: Path, image: ImageFiles, choice: Choice, drawn: bool) -> int | None:
    """How many nuclei a file holds; None for a file without any outline, mask or map.

    drawn: without regions and what others hide, as a map that was made of outlines is.
    """
    shape = image_shape(image.image)
    if is_array(path):
        return count_ids(read_array(path, shape, image.image, choice))
    annotations = read_annotations(path, image.image.name, shape, choice)
    number = len(annotations.outlines) + len(annotations.masks)
    if not number or not drawn:
        return number or None
    return count_ids(draw(object_pixels(without_regions(annotations, shape), shape), shape))
