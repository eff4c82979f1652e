"""Features of a nucleus for a table: place, shape, colour."""

from math import sqrt

import cv2
import numpy as np
from skimage.color import rgb2hed
from skimage.measure import (
    grid_points_in_poly,
    inertia_tensor_eigvals,
    moments_central,
    perimeter,
)

NAMES = (
    "x", "y", "area", "perimeter", "eccentricity", "major_axis", "minor_axis", "solidity", "red",
    "green", "blue", "haematoxylin", "probability",
)  # fmt: skip


def feature_names(mpp: float | None) -> list[str]:
    """The names of the features, in their order. mpp: microns per pixel, if known."""
    return [*NAMES, *(["area_um2"] if mpp else [])]


def hull_area(mask: np.ndarray) -> int:
    """Number of pixels in the convex hull of a mask [h, w] bool, as `regionprops` counts them.

    The hull is that of the middles of all edges of pixels.
    """
    corners = cv2.convexHull(cv2.findNonZero(mask.astype(np.uint8)))
    edges = 2 * corners + np.array([(-1, 0), (1, 0), (0, -1), (0, 1)], np.int32)  # in half pixels
    x_y = cv2.convexHull(edges.reshape(-1, 1, 2))[:, 0]
    return np.count_nonzero(grid_points_in_poly(mask.shape, x_y[:, ::-1] / 2, binarize=False))


def nucleus_features(
    mask: np.ndarray,
    box: tuple[slice, slice],
    corner: tuple[int, int],
    image: np.ndarray,
    prob: np.ndarray,
    scale: float = 1.0,
    mpp: float | None = None,
) -> dict[str, float]:
    """Features of one nucleus: name -> value.

    image [h, w, 3] uint8 and prob [h, w] are a part whose first pixel is `corner` (row, column).
    mask, bool: the nucleus in its bounding box, `box`: rows and columns of that part. scale: side
    of a pixel in pixels of the file; mpp: microns per pixel.

    x, y: centroid in pixels of the file, whose first pixel has its middle at 0.5.
    area, perimeter, major_axis, minor_axis: in pixels of the mask.
    area_um2: area in square microns, if `mpp` is given.
    eccentricity, solidity: in 0..1.
    red, green, blue: mean colour in 0..255.
    haematoxylin: mean optical density of the stain (Ruifrok and Johnston 2001).
    probability: mean over the nucleus.
    """
    rows, cols = np.nonzero(mask)
    colour = image[box][mask]
    central = moments_central(mask.astype(np.uint8), (rows.mean(), cols.mean()), order=3)
    major, minor = inertia_tensor_eigvals(mask, central)
    values = (
        ((cols + box[1].start).mean() + corner[1] + 0.5) * scale,
        ((rows + box[0].start).mean() + corner[0] + 0.5) * scale,
        len(rows),
        perimeter(mask, 4),
        sqrt(1 - minor / major) if major else 0,
        4 * sqrt(major),
        4 * sqrt(minor),
        len(rows) / hull_area(mask),
        *colour.mean(0),
        rgb2hed(colour[None])[..., 0].mean(),
        prob[box][mask].mean(),
        *([len(rows) * mpp**2] if mpp else []),
    )
    return {n: float(value) for n, value in zip(feature_names(mpp), values, strict=True)}
