"""Colour statistics of the training images."""

from pathlib import Path

import numpy as np

from code_common.errors import InputError
from code_common.files.reading import read_json


class ColourStatistics:
    """Mean and standard deviation of each channel over images that are added one by one."""

    def __init__(self) -> None:
        self.sum, self.square, self.count = np.zeros(3), np.zeros(3), 0

    def add(self, image: np.ndarray) -> None:
        """Add an RGB image [H, W, 3] uint8."""
        values = image.reshape(-1, 3) / 255.0
        self.sum += values.sum(0)
        self.square += np.square(values).sum(0)
        self.count += len(values)

    def result(self) -> dict[str, list[float]]:
        """'mean' and 'std' of R, G, B for colours in 0..1. At least one image must be added."""
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(self.square / self.count - mean**2, 1e-6))
        return {"mean": mean.tolist(), "std": std.tolist()}


def read_colours(path: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of R, G, B (0..1) from a file of `ColourStatistics.result`.

    Raises InputError if the file does not exist or holds something else.
    """
    colours = read_json(path)
    try:
        mean, std = ([float(v) for v in colours[k]] for k in ("mean", "std"))
        if len(mean) == len(std) == 3 and min(std) > 0 and np.isfinite([*mean, *std]).all():
            return mean, std
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"{path}: expected the mean and std of three channels")
