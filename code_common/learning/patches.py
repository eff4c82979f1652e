"""Patches and tiles: windows that cover an image of any size completely."""

from math import ceil


def starts(length: int, size: int, overlap: int = 0) -> list[int]:
    """First pixels of windows of `size` pixels that cover `length` pixels, evenly spread.

    Neighbours share at least `overlap` pixels, and the last window ends at the last pixel (D24).
    A window larger than the image starts at 0. Windows of 250 px in 1000 px start at 0, 250, 500
    and 750, as in the paper. Raises ValueError for an overlap outside 0..size - 1.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be from 0 to {size - 1}, not {overlap}")
    if length <= size:
        return [0]
    count = ceil((length - overlap) / (size - overlap))
    return [i * (length - size) // (count - 1) for i in range(count)]


def windows(shape: tuple[int, int], size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Top left corners (row, column) of square windows that cover an image of shape [H, W].

    size: side in pixels; overlap: least number of pixels that neighbours share. Raises ValueError
    as `starts` does.
    """
    rows, cols = (starts(n, size, overlap) for n in shape)
    return [(row, col) for row in rows for col in cols]


def centred(corner: tuple[int, int], shape: tuple[int, int], size: int) -> tuple[float, float]:
    """The corner of a window of `windows`, along each side on which the image is smaller moved so
    that both have one middle.
    """
    row, col = (first + min(0, n - size) / 2 for first, n in zip(corner, shape, strict=True))
    return row, col
