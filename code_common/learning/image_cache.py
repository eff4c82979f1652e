"""Where decoded images are kept during training: in memory, or on the disk."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from code_common.files.reading import image_shape
from code_common.files.writing import write_bytes


def keeper(
    folder: Path, images: Sequence[Path], bytes_per_pixel: int, where: str
) -> Callable[[str, np.ndarray], np.ndarray]:
    """How to keep the decoded arrays of a data set: a function of (name, array).

    where: 'memory'; 'disk', as read-only maps of files in `folder`, of which memory holds what is
    used; or 'auto': memory where all of them take no more than half of it.
    """
    if where == "auto":
        pixels = sum(np.prod(image_shape(path), dtype=np.int64) for path in images)
        known = hasattr(os, "sysconf")  # not on Windows
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 16 << 30
        where = "memory" if pixels * bytes_per_pixel <= memory / 2 else "disk"
    if where == "memory":
        return lambda _, array: array

    def keep(name: str, array: np.ndarray) -> np.ndarray:
        data = io.BytesIO()
        np.save(data, array)
        write_bytes(folder / f"{name}.npy", data.getbuffer())
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    return keep
