"""Nuclei as GeoJSON that QuPath reads (0.6 and newer are strict): closed, valid rings.

Coordinates are x, y in pixels from the top left corner of the image, QuPath's frame.
"""

import json
import uuid
from typing import BinaryIO

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

COLOUR = [230, 200, 40]  # of the class in QuPath
_NAMESPACE = uuid.UUID("b5b5fd32-6ac4-4b1c-9d19-1c6a2f7f3a11")


def rings(mask: np.ndarray) -> list[list[list[float]]]:
    """Closed outlines of the components (edges shared) of a mask [H, W] bool, holes filled.

    The contour runs through the middles of the edges between pixels, never twice through a point.
    """
    filled = ndimage.binary_fill_holes(mask)
    contours = find_contours(np.pad(filled, 1).astype(np.uint8), 0.5, fully_connected="low")
    # A padded index counts from the middle of a pixel and starts one early: - 1 + 1/2.
    return [(contour[:, ::-1] - 0.5).tolist() for contour in contours]


def nucleus_feature(
    mask: np.ndarray,
    corner: tuple[int, int],
    measurements: dict[str, float],
    scale: float = 1.0,
    name: str = "Nucleus",
) -> dict:
    """A detection with the outline of mask [h, w], whose first pixel is at `corner` (row, column).

    One of several components is a MultiPolygon. Coordinates are multiplied by `scale`. The same
    nucleus gives the same id.
    """
    x_y = np.array(corner[::-1])
    parts = [[((np.array(ring) + x_y) * scale).round(2).tolist()] for ring in rings(mask)]
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
    """A detected point; x and y in pixels of the image file, from its corner."""
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
    """A FeatureCollection of detections, one for each id of an instance map [H, W].

    With a probability map [H, W] in 0..1 each has its mean as a measurement, beside the area in
    square pixels.
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
    """A GeoJSON file that is written feature by feature."""

    def __init__(self, file: BinaryIO):
        self.file, self.count = file, 0
        file.write(b'{"type": "FeatureCollection", "features": [')

    def add(self, feature: dict) -> None:
        """Write one more feature."""
        self.file.write(b",\n" if self.count else b"\n")
        self.file.write(json.dumps(feature, allow_nan=False).encode())
        self.count += 1

    def end(self) -> None:
        """Write what comes after the last one."""
        self.file.write(b"\n]}\n")
