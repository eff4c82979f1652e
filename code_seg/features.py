"""Features of a nucleus for a table: place, shape, colour."""

import numpy as np
from skimage.color import rgb2hed
from skimage.measure import regionprops


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
    features = {
        "x": (cols.mean() + corner[1] + 0.5) * scale,
        "y": (rows.mean() + corner[0] + 0.5) * scale,
        "area": len(rows),
        "perimeter": region.perimeter,
        "eccentricity": region.eccentricity,
        "major_axis": region.axis_major_length,
        "minor_axis": region.axis_minor_length,
        "solidity": region.solidity if min(np.ptp(rows), np.ptp(cols)) > 0 else 1.0,
        "red": colour[:, 0].mean(),
        "green": colour[:, 1].mean(),
        "blue": colour[:, 2].mean(),
        "haematoxylin": rgb2hed(colour[None])[..., 0].mean(),
        "probability": prob[mask].mean(),
    }
    if mpp:
        features["area_um2"] = len(rows) * mpp**2
    return {name: float(value) for name, value in features.items()}
