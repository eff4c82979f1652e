"""Overlays of stage 2: labels over their image, predicted beside true nuclei."""

import numpy as np
from scipy import ndimage

from code_common.reporting.drawing import (
    BLUE,
    CYAN,
    GREEN,
    ORANGE,
    YELLOW,
    mark,
    outline,
    tint,
)
from code_seg.labels import BACKGROUND, NUCLEUS
from code_seg.metrics import overlaps, unmatched


def label_overlay(image: np.ndarray, label: np.ndarray, thin: bool = False) -> np.ndarray:
    """A label over its image: orange background, green nuclei, the ignored as it is.

    `thin`: the label is of lines and dots (the Voronoi label), which need strong colours.
    """
    background = tint(image, label == BACKGROUND, ORANGE, 1.0 if thin else 0.5)
    return tint(background, label == NUCLEUS, GREEN, 1.0 if thin else 0.6)


def draw_errors(image: np.ndarray, instances: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """Overlay: yellow predicted, cyan true outlines; blue squares missed, orange crosses wrong.

    Missed and wrong is what has no partner at IoU over 0.5 (see `metrics.unmatched`).
    """
    if truth is None:
        return outline(image, instances, YELLOW)
    image = outline(outline(image, truth, CYAN), instances, YELLOW)
    missed, wrong = unmatched(overlaps(truth, instances))
    image = mark(image, middles(truth)[missed], "square", BLUE, 4)
    return mark(image, middles(instances)[wrong], "cross", ORANGE, 4)


def middles(instances: np.ndarray) -> np.ndarray:
    """Centre of mass [N, 2] (row, column) of each nucleus, in order of the ids."""
    ids = np.unique(instances[instances > 0])
    return np.array(ndimage.center_of_mass(instances > 0, instances, ids)).reshape(-1, 2)
