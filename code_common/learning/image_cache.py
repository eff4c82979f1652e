"""A cache of decoded images during training, in memory or on the disk."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from code_common.files.image_kinds import memory_bytes
from code_common.files.images import image_shape
from code_common.files.writing import write_bytes


def make_image_cache(
    folder: Path, images: Sequence[Path], bytes_per_pixel: int, where: str
) -> Callable[[str, np.ndarray], np.ndarray]:
    """A function (name, array) -> array that puts a decoded array into the cache.

    where: 'memory': the array itself is kept; 'disk': it becomes a read-only map of a file in
    `folder`, and memory holds only what is used; 'auto': memory if all `images`, at
    `bytes_per_pixel`, take at most half of it, else the disk. Raises InputError as `image_shape`
    does.
    """
    if where == "auto":
        pixels = sum(np.prod(image_shape(path), dtype=np.int64) for path in images)
        where = "memory" if pixels * bytes_per_pixel <= memory_bytes() / 2 else "disk"

    def keep_in_memory(_: str, array: np.ndarray) -> np.ndarray:
        return array

    def cache_on_disk(name: str, array: np.ndarray) -> np.ndarray:
        data = io.BytesIO()
        np.save(data, array)
        write_bytes(folder / f"{name}.npy", data.getbuffer())
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    return keep_in_memory if where == "memory" else cache_on_disk
