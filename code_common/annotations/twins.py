"""Whether two files of annotations of one image hold the same nuclei."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from code_common.annotations.choice import Choice
from code_common.annotations.formats import (
    TABLES,
    draw,
    read_annotations,
    read_array,
    without_regions,
)
from code_common.annotations.labels import count_ids, object_pixels
from code_common.annotations.of_image import is_array
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.images import image_shape

WITHIN = 1.0  # pixels that a point may lie apart in two files, of which one is rounded
# Pixels that the middle of a nucleus may: where nuclei overlap, others may be on top. In MoNuSeg's
# outlines and published masks these are up to 3.
MIDDLES_WITHIN = 5.0


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
                same = _same_points(*(_points(path, image, choice) for path in (source, other)))
            else:
                same = _same_nuclei(*(_Nuclei(path, image, choice) for path in (source, other)))
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


def _near(first: np.ndarray, second: np.ndarray, within: float) -> bool:
    """Whether each of the fewer of points [N, 2] lies near one of the others, and the reverse where
    both are as many.
    """
    few, many = sorted((first, second), key=len)
    if not len(few):
        return not len(many)
    pairs = [(many, few)] if len(few) < len(many) else [(many, few), (few, many)]
    return max(KDTree(a).query(b)[0].max() for a, b in pairs) <= within


def _same_points(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Whether points [N, 2] are as many, and each lies near one of the others."""
    if first is None or second is None:
        return True
    return len(first) == len(second) and _near(first, second, WITHIN)


class _Nuclei:
    """The nuclei of a file of outlines or masks, or of an instance map."""

    def __init__(self, path: Path, image: ImageFiles, choice: Choice):
        self.shape = image_shape(image.image)
        if is_array(path):
            self.annotations = None
            self.map = read_array(path, self.shape, image.image, choice)
            self.number: int | None = count_ids(self.map)
        else:
            held = read_annotations(path, image.image.name, self.shape, choice)
            self.annotations = held
            self.number = len(held.outlines) + len(held.masks)
            other = held.points or held.boxes or held.left_out or path.suffix.lower() in TABLES
            if other and not self.number:
                self.number = None  # a file of something else

    def drawn(self) -> np.ndarray:
        """Their map [H, W], without regions and what others hide, as it is made of outlines."""
        if self.annotations is None:
            return self.map
        known = without_regions(self.annotations, self.shape)
        return draw(object_pixels(known, self.shape), self.shape)


def _same_nuclei(first: _Nuclei, second: _Nuclei) -> bool:
    """Whether two files hold as many nuclei, as they are or drawn, with their middles at one place.

    A file without any outline, mask or map is alike.
    """
    if first.number is None or second.number is None:
        return True
    maps = [first.drawn(), second.drawn()]
    if first.number != second.number and count_ids(maps[0]) != count_ids(maps[1]):
        return False
    return _near(*map(_middles, maps), MIDDLES_WITHIN)


def _middles(instances: np.ndarray) -> np.ndarray:
    """The centres of gravity [N, 2] (row, column) of the nuclei of a map [H, W]."""
    ids, numbered = np.unique(instances, return_inverse=True)
    numbered = numbered.reshape(instances.shape)
    known = np.flatnonzero(ids > 0)
    return np.reshape(ndimage.center_of_mass(numbered >= 0, numbered, known), (-1, 2))
