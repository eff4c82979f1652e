"""Features of a nucleus for a table: place, shape, colour."""

import numpy as np
from skimage.color import rgb2hed
from skimage.measure import regionprops

NAMES = (
    "x", "y", "area", "perimeter", "eccentricity", "major_axis", "minor_axis", "solidity", "red",
    "green", "blue", "haematoxylin", "probability",
)  # fmt: skip


def feature_names(mpp: float | None) -> list[str]:
    """The names of the features, in their order. mpp: microns per pixel, if known."""
    return [*NAMES, *(["area_um2"] if mpp else [])]


def nucleus_features(
    mask: np.ndarray,
    corner: tuple[int, int],
    image: np.ndarray,
    prob: np.ndarray,
    scale: float = 1.0,
    mpp: float | None = None,
) -> dict[str, float]:
    """Features of one nucleus: name -> value.

    mask [h, w] bool, image [h, w, 3] uint8 and prob [h, w] are those of a box whose first pixel is
    `corner` (row, column). scale: side of a pixel in pixels of the file; mpp: microns per pixel.

    x, y: centroid in pixels of the file, whose first pixel has its middle at 0.5.
    area, perimeter, major_axis, minor_axis: in pixels of the mask.
    area_um2: area in square microns, if `mpp` is given.
    eccentricity, solidity: in 0..1.
    red, green, blue: mean colour in 0..255.
    haematoxylin: mean optical density of the stain (Ruifrok and Johnston 2001).
    probability: mean over the nucleus.
    """
    (region,) = regionprops(mask.astype(np.uint8))
    rows, cols = np.nonzero(mask)
    colour = image[mask]
    values = (
        (cols.mean() + corner[1] + 0.5) * scale,
        (rows.mean() + corner[0] + 0.5) * scale,
        len(rows),
        region.perimeter,
        region.eccentricity,
        region.axis_major_length,
        region.axis_minor_length,
        region.solidity if min(np.ptp(rows), np.ptp(cols)) > 0 else 1.0,
        *colour.mean(0),
        rgb2hed(colour[None])[..., 0].mean(),
        prob[mask].mean(),
        *([len(rows) * mpp**2] if mpp else []),
    )
    return {n: float(value) for n, value in zip(feature_names(mpp), values, strict=True)}
