"""Stain augmentation: crops as if their slides were stained more, less, or a little otherwise."""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.color import hed_from_rgb, rgb_from_hed

# Optical density (natural logarithm) of the values 0..255 of a pixel; black counts as 1.
_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


@dataclass(frozen=True)
class Stain:
    """An affine change of optical densities, for these add up where stains lie over each other."""

    matrix: np.ndarray  # [3, 4] float32: densities (R, G, B, 1) -> densities (R, G, B)

    def image(self, image: np.ndarray) -> np.ndarray:
        """The uint8 RGB image [H, W, 3] so stained."""
        density = cv2.transform(_DENSITY[image], self.matrix)
        return np.rint(255 * np.minimum(cv2.exp(-density), 1)).astype(np.uint8)


def draw_stain(rng: np.random.Generator, strength: float) -> Stain:
    """A random change of haematoxylin, eosin and the residual (Ruifrok & Johnston 2001).

    The density of each is multiplied by 1 - strength to 1 + strength, and up to strength / 4 is
    added or taken (after Tellez et al. 2018).
    """
    scale = rng.uniform(1 - strength, 1 + strength, 3)
    shift = rng.uniform(-strength, strength, 3) / 4
    linear = (hed_from_rgb * scale) @ rgb_from_hed  # of densities as rows
    matrix = np.column_stack([linear.T, shift @ rgb_from_hed])
    return Stain(matrix.astype(np.float32))
