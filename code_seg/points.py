"""The points of stage 2: annotated ones and detections, as stage 1 left them, merged.

This file is the contract between the stages: two folders of CSV tables, and nothing else.
"""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from code_common.errors import InputError
from code_common.files.reading import read_points
from code_common.files.run_folder import detections_path, points_path


def merge_points(annotated: np.ndarray, detected: np.ndarray, merge_radius: float) -> np.ndarray:
    """Annotated points and the detections of other nuclei, [N, 2] each: row, column.

    A detection is the same nucleus as an annotated point where each is the other's nearest and
    they are at most `merge_radius` pixels apart; of points closer than half of that, the first
    is kept (D12: a neighbour within the radius is not lost, and nothing is there twice).
    """
    points = np.concatenate([annotated, detected]).astype(np.int64).reshape(-1, 2)
    if len(annotated) and len(detected):
        distance, nearest = cKDTree(annotated).query(detected)
        _, back = cKDTree(detected).query(annotated)
        same = (back[nearest] == np.arange(len(detected))) & (distance <= merge_radius)
        points = np.concatenate([annotated, detected[~same]]).astype(np.int64)
    if len(points) < 2:
        return points
    keep = np.ones(len(points), bool)
    pairs = cKDTree(points).query_pairs(merge_radius / 2, output_type="ndarray")
    for first, second in pairs[np.lexsort(pairs.T[::-1])]:
        # An annotated point is always kept, and so are two annotated neighbours.
        if keep[first] and second >= len(annotated):
            keep[second] = False
    return points[keep]


def read_detections(detection_dir: Path, name: str, shape: tuple[int, int]) -> np.ndarray:
    """The detections [N, 2] of an image; InputError where stage 1 was not run."""
    return _read_of_stage_1(detections_path(detection_dir, name), shape)


def read_annotated(detection_dir: Path, name: str, shape: tuple[int, int]) -> np.ndarray:
    """The partial points [N, 2] of a training image, as stage 1 drew them; raises InputError."""
    return _read_of_stage_1(points_path(detection_dir, name), shape)


def _read_of_stage_1(path: Path, shape: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file; run stage 1 first (code_detection/main.py)")
    return read_points(path, shape)
