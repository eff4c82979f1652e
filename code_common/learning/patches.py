"""Patches and tiles: windows that cover an image of any size exactly."""

from math import ceil


def starts(length: int, size: int, overlap: int = 0) -> list[int]:
    """First pixels of windows of `size` that cover `length` pixels, evenly spread.

    Neighbours share at least `overlap` pixels and the last window ends at the last pixel; a
    window larger than the image starts at 0. 1000 px in windows of 250: 0, 250, 500, 750, the
    paper's grid, while other sizes lose no pixel and leave no gap (D24).
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be from 0 to {size - 1}, not {overlap}")
    if length <= size:
        return [0]
    count = ceil((length - overlap) / (size - overlap))
    return [i * (length - size) // (count - 1) for i in range(count)]


def windows(shape: tuple[int, int], size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Top left corners (row, column) of square windows that cover an image [H, W]."""
    rows, cols = (starts(n, size, overlap) for n in shape)
    return [(row, col) for row in rows for col in cols]
