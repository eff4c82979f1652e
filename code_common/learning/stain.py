"""Stain augmentation: crops look as if their slides had been stained more, less or differently."""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.color import hed_from_rgb, rgb_from_hed

# Optical density (natural logarithm) of the values 0..255 of a pixel; black counts as 1.
_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


@dataclass(frozen=True)
class Stain:
    """An affine change of optical densities. Densities of stains add up, their colours do not."""

    matrix: np.ndarray  # [3, 4] float32: densities (R, G, B, 1) -> densities (R, G, B)

    def image(self, image: np.ndarray) -> np.ndarray:
        """The uint8 RGB image [H, W, 3] with changed stains."""
        density = cv2.transform(_DENSITY[image], self.matrix)
        return np.rint(255 * np.minimum(cv2.exp(-density), 1)).astype(np.uint8)


def draw_stain(rng: np.random.Generator, strength: float) -> Stain:
    """A random change of haematoxylin, eosin and the residual stain (Ruifrok & Johnston 2001).

    Each density is multiplied by a number from 1 - strength to 1 + strength. A number from
    -strength / 4 to strength / 4 is added to it (after Tellez et al. 2018).
    """
    scale = rng.uniform(1 - strength, 1 + strength, 3)
    shift = rng.uniform(-strength, strength, 3) / 4
    linear = (hed_from_rgb * scale) @ rgb_from_hed  # acts on densities as row vectors
    matrix = np.column_stack([linear.T, shift @ rgb_from_hed])
    return Stain(matrix.astype(np.float32))
