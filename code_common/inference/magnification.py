"""Images seen magnified, whole or in parts: enlarged before a network, reduced after it.

Factors are multiples of 1/4, so four pixels become a whole number of larger pixels. An image that
is read in parts is therefore magnified like the whole image.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from code_common.inference.slides import Slide

UNIT = 4  # pixels that every factor turns into a whole number of pixels
HALO = 2 * UNIT  # pixels around a part, more than its enlargement depends on
LARGEST = 2.0  # factor


def magnification(radius: float, wanted: float) -> float:
    """The factor, a multiple of 1/4 from 1 to LARGEST, that brings `radius` nearest to `wanted`.

    Both are in pixels. The factor is 1 if the radius is nan, that is, unknown.
    """
    if not radius > 0:
        return 1.0
    return float(np.clip(np.round(UNIT * wanted / radius) / UNIT, 1, LARGEST))


def _whole(length: int) -> int:
    """The length rounded up to whole units."""
    return -(-length // UNIT) * UNIT


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """An image [H, W, 3] magnified. It is first mirrored below and to the right to whole units."""
    if factor == 1:
        return image
    h, w = image.shape[:2]
    whole = np.pad(image, ((0, _whole(h) - h), (0, _whole(w) - w), (0, 0)), mode="symmetric")
    size = [round(n * factor) for n in whole.shape[1::-1]]
    return cv2.resize(whole, size, interpolation=cv2.INTER_CUBIC)


def enlarged_map(labels: np.ndarray, factor: float) -> np.ndarray:
    """A map of labels or ids [H, W] at the size of its `enlarged` image, by nearest pixels."""
    if factor == 1:
        return labels
    rows, cols = (
        np.minimum((np.arange(round(_whole(n) * factor)) + 0.5) / factor, n - 1).astype(int)
        for n in labels.shape
    )
    return labels[np.ix_(rows, cols)]


def enlarged_points(points: np.ndarray, factor: float) -> np.ndarray:
    """Points [N, 2] (row, column) of an image as points of the `enlarged` image."""
    return np.floor((points + 0.5) * factor).astype(np.int64)


def factor_of(large: np.ndarray, image: np.ndarray) -> float:
    """The factor by which `large` is the magnified `image`, from their numbers of rows."""
    return 1.0 if len(large) == len(image) else len(large) / _whole(len(image))


def reduced_label(label: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A map of labels of the magnified image at the image's size [H, W], by nearest pixels."""
    factor = factor_of(label, image)
    rows, cols = (((np.arange(n) + 0.5) * factor).astype(int) for n in image.shape[:2])
    return label[np.ix_(rows, cols)]


def reduced_map(prob: np.ndarray, shape: tuple[int, int], factor: float) -> np.ndarray:
    """A map [h, w] of the magnified image at the image's `shape`: the mean over each pixel."""
    if factor == 1:
        return prob
    rows, cols = (_whole(n) for n in shape)
    part = prob[: round(rows * factor), : round(cols * factor)]
    return cv2.resize(part, (cols, rows), interpolation=cv2.INTER_AREA)[: shape[0], : shape[1]]


def reduced_rows(
    parts: Iterable[tuple[int, np.ndarray]], shape: tuple[int, int], factor: float
) -> Iterator[tuple[int, np.ndarray]]:
    """`reduced_map` of a map that comes in parts (row, [1, rows, w]) from top to bottom.

    Gives parts (row, [1, rows, W]) of a map of `shape` [H, W].
    """
    if factor == 1:
        yield from parts
        return
    step = round(UNIT * factor)  # rows that make a whole number of reduced rows
    pending = None  # the last rows, which the next part completes to a step
    for row, part in parts:
        if pending is not None:
            row, part = row - pending.shape[1], np.concatenate([pending, part], 1)
        rows = part.shape[1] // step * step
        pending, first = part[:, rows:], round(row / factor)
        if rows and first < shape[0]:
            reduced_shape = min(round(rows / factor), shape[0] - first), shape[1]
            yield first, reduced_map(part[0, :rows], reduced_shape, factor)[None]


def enlarged_slide(slide: Slide, factor: float) -> Slide:
    """A slide that is read magnified. Each part has the pixels of the `enlarged` whole image.

    A pixel may differ by one grey level, because positions are computed in single precision.
    """
    if factor == 1:
        return slide

    def source(first: int, count: int, length: int) -> tuple[int, int, int]:
        """Begin and end of the pixels to read along one axis, and the part's first pixel in them.

        The part begins at `first` and has `count` pixels; the slide has `length` pixels.
        """
        begin = max(0, int(first / factor) // UNIT * UNIT - HALO)
        end = _whole(int(np.ceil((first + count) / factor))) + HALO
        return begin, min(end, length), first - round(begin * factor)

    def read(row: int, col: int, rows: int, cols: int) -> np.ndarray:
        top, bottom, row = source(row, rows, slide.shape[0])
        left, right, col = source(col, cols, slide.shape[1])
        part = enlarged(slide.read(top, left, bottom - top, right - left), factor)
        return np.ascontiguousarray(part[row : row + rows, col : col + cols])

    shape = tuple(round(_whole(n) * factor) for n in slide.shape)
    mpp = slide.mpp and slide.mpp / factor
    return Slide(shape, read, mpp, slide.scale / factor, slide.thumbnail)
