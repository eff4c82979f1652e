"""Paired augmentation: one random map for the image, its label maps and its points.

The map combines all steps of the paper's recipe (Qu et al. 2020, Sec. IV): resize, flips, shear,
rotation, crop and, for stage 2, a B-spline deformation. It leads from the crop to the image. Each
array is therefore interpolated only once, and points move exactly (D10: points are not searched as
maxima of a rotated label).
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np


@dataclass(frozen=True)
class Warp:
    """A map from the pixels of a crop [size, size] to coordinates of the image."""

    size: int  # side of the crop in pixels
    matrix: np.ndarray  # [2, 3]: crop (x, y, 1) -> image (x, y)
    field: np.ndarray | None = None  # [size, size, 2]: displacement (x, y) in crop pixels

    def _sample(self, array: np.ndarray, interpolation: int, border: dict) -> np.ndarray:
        if self.field is None:
            flags = interpolation | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(array, self.matrix, (self.size,) * 2, flags=flags, **border)
        return cv2.remap(array, self._source, None, interpolation, **border)

    @cached_property
    def _source(self) -> np.ndarray:
        """Coordinates [size, size, 2] float32 (x, y) of the image that the crop's pixels show."""
        y, x = np.mgrid[: self.size, : self.size].astype(np.float32)
        crop = np.stack([x + self.field[..., 0], y + self.field[..., 1], np.ones_like(x)], -1)
        return (crop @ self.matrix.T).astype(np.float32)

    def image(self, image: np.ndarray) -> np.ndarray:
        """Crop [size, size, 3] of an image [H, W, 3], which is mirrored at its border."""
        return self._sample(image, cv2.INTER_LINEAR, {"borderMode": cv2.BORDER_REFLECT_101})

    def label(self, label: np.ndarray, outside: int) -> np.ndarray:
        """Crop [size, size] of a uint8 label map [H, W], by nearest pixels.

        Pixels outside the image get the value `outside`.
        """
        border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": outside}
        return self._sample(label, cv2.INTER_NEAREST, border)

    def inside(self, shape: tuple[int, int]) -> np.ndarray:
        """Mask [size, size] bool of the crop pixels that lie in an image of shape [H, W]."""
        return self.label(np.ones(shape, np.uint8), 0) > 0

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 2] (row, column) of the image as points of the crop, int64.

        Points outside the crop are dropped. Raises ValueError if the map has a deformation field,
        because its inverse has no closed form.
        """
        if self.field is not None:
            raise ValueError("points cannot be moved through a deformation field")
        linear, shift = self.matrix[:, :2], self.matrix[:, 2]
        xy = (points[:, ::-1] - shift) @ np.linalg.inv(linear).T
        moved = np.rint(xy[:, ::-1]).astype(np.int64).reshape(-1, 2)
        return moved[((moved >= 0) & (moved < self.size)).all(axis=1)]


@dataclass(frozen=True)
class Augmentation:
    """Ranges from which a random map is drawn (Qu et al. 2020, Sec. IV, training details)."""

    size: int = 224  # side of the crop in pixels
    scale: tuple[float, float] = (0.8, 1.25)  # magnification
    shear: float = 0.3  # largest shear along each axis, in both directions
    rotation: float = 90.0  # largest rotation in degrees, in both directions
    flip: bool = True  # along each axis with probability 1/2
    elastic: float = 0.0  # standard deviation of the B-spline control points in pixels; 0: none
    elastic_probability: float = 0.5  # of a deformation, if `elastic` is not 0

    def draw(self, rng: np.random.Generator, window: tuple[float, float], patch: int) -> Warp:
        """A random map whose crop shows a patch of the image.

        window: row and column of the patch's top left corner; patch: its side in pixels.
        """
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        shear_x, shear_y = rng.uniform(-self.shear, self.shear, 2)
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        flips = rng.choice([-1.0, 1.0], 2) if self.flip else np.ones(2)
        shear = np.array([[1, shear_x], [shear_y, 1 + shear_x * shear_y]])  # keeps areas
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = rotation @ shear @ np.diag(flips) / scale
        # The crop's centre is drawn so that a crop without rotation and shear fits into the patch.
        slack = max(0.0, (patch - self.size / scale) / 2)
        centre = np.array(window)[::-1] + (patch - 1) / 2 + rng.uniform(-slack, slack, 2)
        shift = centre - linear @ np.full(2, (self.size - 1) / 2)
        field = None
        if self.elastic > 0 and rng.random() < self.elastic_probability:
            field = bspline_field(rng, self.size, self.elastic)
        return Warp(self.size, np.column_stack([linear, shift]), field)


def bspline_field(rng: np.random.Generator, size: int, sigma: float, mesh: int = 6) -> np.ndarray:
    """Random free-form deformation [size, size, 2] float32: displacements (x, y) in pixels.

    It is a cubic B-spline over mesh x mesh cells. Each of its (mesh + 3)^2 control points moves by
    N(0, sigma) pixels along either axis (D16: all parameters are drawn).
    """
    position = np.arange(size) * mesh / size
    cell, t = position.astype(int), position % 1
    pieces = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    basis = np.zeros((size, mesh + 3))
    for k, piece in enumerate(pieces):
        basis[np.arange(size), cell + k] = piece / 6
    control = rng.normal(0, sigma, (2, mesh + 3, mesh + 3))
    return np.moveaxis(basis @ control @ basis.T, 0, -1).astype(np.float32)
