"""Images seen magnified, whole or in parts: enlarged before a network, reduced after it.

Factors are quarters, so that four pixels are a whole number of larger ones and an image that is
read in parts is magnified as the whole would be.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from code_common.inference.slides import Slide

UNIT = 4  # pixels that a factor of quarters makes a whole number of
HALO = 2 * UNIT  # pixels around a part that its enlargement depends on, and more
LARGEST = 2.0


def magnification(radius: float, wanted: float) -> float:
    """The factor, in quarters from 1 to LARGEST, that takes a radius nearest to the one wanted.

    1 where the radius is nan, for it is not known.
    """
    if not radius > 0:
        return 1.0
    return float(np.clip(np.round(UNIT * wanted / radius) / UNIT, 1, LARGEST))


def _whole(length: int) -> int:
    """The length rounded up to whole units."""
    return -(-length // UNIT) * UNIT


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """An image [H, W, 3] magnified, mirrored below and to the right up to whole units of 4 px."""
    if factor == 1:
        return image
    h, w = image.shape[:2]
    whole = np.pad(image, ((0, _whole(h) - h), (0, _whole(w) - w), (0, 0)), mode="symmetric")
    size = [round(n * factor) for n in whole.shape[1::-1]]
    return cv2.resize(whole, size, interpolation=cv2.INTER_CUBIC)


def enlarged_map(labels: np.ndarray, factor: float) -> np.ndarray:
    """A map of labels or ids [H, W] as large as `enlarged` makes its image: the nearest pixels."""
    if factor == 1:
        return labels
    rows, cols = (
        np.minimum((np.arange(round(_whole(n) * factor)) + 0.5) / factor, n - 1).astype(int)
        for n in labels.shape
    )
    return labels[np.ix_(rows, cols)]


def enlarged_points(points: np.ndarray, factor: float) -> np.ndarray:
    """Points [N, 2] (row, column) of an image in the one that `enlarged` makes of it."""
    return np.floor((points + 0.5) * factor).astype(np.int64)


def factor_of(large: np.ndarray, image: np.ndarray) -> float:
    """By how much an image was magnified, told by its size and the other's."""
    return 1.0 if len(large) == len(image) else len(large) / _whole(len(image))


def reduced_label(label: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A map of labels of a magnified image at the image's own size: the nearest pixels."""
    points = [(np.arange(n) + 0.5) * factor_of(label, image) for n in image.shape[:2]]
    return label[np.ix_(*(p.astype(int) for p in points))]


def reduced_map(prob: np.ndarray, shape: tuple[int, int], factor: float) -> np.ndarray:
    """A map [h, w] of a magnified image at the image's own shape: means over the areas."""
    if factor == 1:
        return prob
    rows, cols = (_whole(n) for n in shape)
    part = prob[: round(rows * factor), : round(cols * factor)]
    return cv2.resize(part, (cols, rows), interpolation=cv2.INTER_AREA)[: shape[0], : shape[1]]


def reduced_rows(
    parts: Iterable[tuple[int, np.ndarray]], shape: tuple[int, int], factor: float
) -> Iterator[tuple[int, np.ndarray]]:
    """`reduced_map` of a map that comes as (row, [1, rows, w]) from top to bottom."""
    if factor == 1:
        yield from parts
        return
    step, left = round(UNIT * factor), None  # rows that the next part completes
    for row, part in parts:
        if left is not None:
            row, part = row - left.shape[1], np.concatenate([left, part], 1)
        rows = part.shape[1] // step * step
        left, first = part[:, rows:], round(row / factor)
        if rows and first < shape[0]:
            own = min(round(rows / factor), shape[0] - first), shape[1]
            yield first, reduced_map(part[0, :rows], own, factor)[None]


def enlarged_slide(slide: Slide, factor: float) -> Slide:
    """A slide that is read magnified: every part has the pixels that `enlarged` gives."""
    if factor == 1:
        return slide

    def span(first: int, count: int, length: int) -> tuple[int, int, int]:
        begin = max(0, int(first / factor) // UNIT * UNIT - HALO)
        end = _whole(int(np.ceil((first + count) / factor))) + HALO
        return begin, min(end, length), first - round(begin * factor)

    def read(row: int, col: int, rows: int, cols: int) -> np.ndarray:
        (top, bottom, row), (left, right, col) = (
            span(*own) for own in zip((row, col), (rows, cols), slide.shape, strict=True)
        )
        part = enlarged(slide.read(top, left, bottom - top, right - left), factor)
        return np.ascontiguousarray(part[row : row + rows, col : col + cols])

    shape = tuple(round(_whole(n) * factor) for n in slide.shape)
    mpp = slide.mpp and slide.mpp / factor
    return Slide(shape, read, mpp, slide.scale / factor, slide.thumbnail)
