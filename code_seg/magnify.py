"""Small nuclei are seen magnified: how much an image needs, and predictions that do it."""

import numpy as np
from torch import nn

from code_common.inference.magnification import enlarged, magnification, reduced_map
from code_common.inference.tiling import Read, Tiling, predict_prob, reader
from code_seg.evaluate import make_instances

WINDOW, WINDOWS = 448, 9  # side in pixels and number of the parts of a large image looked at
SPECK = 20  # square pixels under which a component says nothing of nuclei


def _parts(shape: tuple[int, int], points: np.ndarray | None) -> list[tuple[int, int, int, int]]:
    """The parts (row, column, rows, columns) of an image that are looked at.

    All of it, or of a large image WINDOWS parts around some of the points.
    """
    if max(shape) <= 3 * WINDOW:
        return [(0, 0, *shape)]
    centres = points
    if centres is None or not len(centres):
        centres = np.linspace((0, 0), shape, WINDOWS + 2).astype(int)[1:-1]
    size = np.minimum(WINDOW, shape)
    chosen = centres[np.linspace(0, len(centres) - 1, WINDOWS).astype(int)]
    corners = np.clip(chosen - size // 2, 0, shape - size)
    return [(row, col, *size.tolist()) for row, col in corners.tolist()]


def median_radius(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    points: np.ndarray | None,
    tiling: Tiling,
) -> float:
    """Median radius in pixels of the nuclei that a network finds in an image [H, W].

    With points [N, 2] the nuclei are convex ones, since specks are many; without points they are
    the components. nan where nothing is found.
    """
    areas = []
    for row, col, rows, cols in _parts(shape, points):
        prob = predict_prob(network, read(row, col, rows, cols), tiling.one_view())
        inside = None
        if points is not None:
            inside = points - (row, col)
            inside = inside[((inside >= 0) & (inside < (rows, cols))).all(1)]
        maps = make_instances(prob, inside, SPECK)
        nuclei = maps.get("convex", maps["components"])
        areas.append(np.bincount(nuclei[nuclei > 0]))
    sizes = np.concatenate(areas)
    sizes = sizes[sizes > 0]
    return float(np.sqrt(np.median(sizes) / np.pi)) if len(sizes) else float("nan")


def choose_magnification(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    points: np.ndarray | None,
    tiling: Tiling,
    radius: float,
) -> float:
    """How much to magnify an image, so that its nuclei get a median radius of `radius` pixels.

    1 where they are large enough, or `radius` is 0. A first look of the network tells.
    """
    if not radius:
        return 1.0
    return magnification(median_radius(network, read, shape, points, tiling), radius)


def predict_enlarged(
    network: nn.Module, image: np.ndarray, tiling: Tiling, factor: float
) -> np.ndarray:
    """Probability [H, W] of a nucleus in an image [H, W, 3] that is seen magnified by `factor`."""
    prob = predict_prob(network, enlarged(image, factor), tiling)
    return reduced_map(prob, image.shape[:2], factor)


def predict_nuclei(
    network: nn.Module,
    image: np.ndarray,
    points: np.ndarray | None,
    tiling: Tiling,
    radius: float,
) -> np.ndarray:
    """Probability [H, W] of a nucleus in an image [H, W, 3], magnified to the radius wanted."""
    read, shape = reader(image), image.shape[:2]
    factor = choose_magnification(network, read, shape, points, tiling, radius)
    return predict_enlarged(network, image, tiling, factor)
