"""Nuclei as GeoJSON for QuPath.

QuPath 0.6 and newer accept only closed rings that do not cross themselves. Coordinates are x, y in
pixels from the top left corner of the image, as in QuPath.
"""

import json
import uuid
from typing import BinaryIO

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

from code_common.arrays import fill_holes, framed

COLOUR = [230, 200, 40]  # of the class in QuPath
_NAMESPACE = uuid.UUID("b5b5fd32-6ac4-4b1c-9d19-1c6a2f7f3a11")


def rings(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines, each [K, 2] (x, y) in pixels, of the components of a mask [H, W] bool.

    Holes are filled. Pixels that share an edge are in one component. An outline runs through the
    middles of the edges between pixels, and never twice through one point.
    """
    filled = fill_holes(mask.astype(np.uint8))
    contours = find_contours(framed(filled), 0.5, fully_connected="low")
    # find_contours gives indices of pixel centres in the framed mask: - 1 for the frame, + 1/2.
    return [contour[:, ::-1] - 0.5 for contour in contours]


def nucleus_feature(
    mask: np.ndarray,
    corner: tuple[int, int],
    measurements: dict[str, float],
    scale: float = 1.0,
    name: str = "Nucleus",
) -> dict:
    """A QuPath detection with the outline of a nucleus.

    mask [h, w] bool: its pixels; corner: row and column of the mask's first pixel in the image;
    measurements: name -> value; scale: factor of the coordinates; name: of the class. A nucleus of
    several components is a MultiPolygon. The same nucleus always gets the same id.
    """
    x_y = np.array(corner[::-1])
    parts = [[((ring + x_y) * scale).round(2).tolist()] for ring in rings(mask)]
    one = len(parts) == 1
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{int(mask.sum())} {parts[0][0][0]}")),
        "geometry": {
            "type": "Polygon" if one else "MultiPolygon",
            "coordinates": parts[0] if one else parts,
        },
        "properties": {
            "objectType": "detection",
            "classification": {"name": name, "color": COLOUR},
            "measurements": measurements,
        },
    }


def point_feature(x: float, y: float, prob: float, name: str = "Nucleus") -> dict:
    """A QuPath point annotation of a detection at x, y in pixels of the image file."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"point {x} {y}")),
        "geometry": {"type": "Point", "coordinates": [round(x, 2), round(y, 2)]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": COLOUR},
            "measurements": {"Probability": prob},
        },
    }


def nuclei_geojson(
    instances: np.ndarray, prob: np.ndarray | None = None, name: str = "Nucleus"
) -> dict:
    """A FeatureCollection with one QuPath detection for each id of an instance map [H, W].

    Each has its area in square pixels as a measurement and, with a probability map [H, W] in 0..1,
    its mean probability.
    """
    features = []
    for k, box in enumerate(ndimage.find_objects(instances), 1):
        if box is None:
            continue
        mask = instances[box] == k
        measurements = {"Area px^2": int(mask.sum())}
        if prob is not None:
            measurements["Probability"] = round(float(prob[box][mask].mean()), 4)
        corner = box[0].start, box[1].start
        features.append(nucleus_feature(mask, corner, measurements, name=name))
    return {"type": "FeatureCollection", "features": features}


class Features:
    """A GeoJSON file that is written feature by feature: `add` any number of times, then `end`."""

    def __init__(self, file: BinaryIO):
        self.file, self.count, self.encode = file, 0, json.JSONEncoder(allow_nan=False).encode
        file.write(b'{"type": "FeatureCollection", "features": [')

    def add(self, feature: dict) -> None:
        """Write one more feature."""
        self.file.write(b",\n" if self.count else b"\n")
        self.file.write(self.encode(feature).encode())
        self.count += 1

    def end(self) -> None:
        """Write the end of the file, after the last feature."""
        self.file.write(b"\n]}\n")
