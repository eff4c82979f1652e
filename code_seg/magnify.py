"""Small nuclei are seen magnified: how much an image needs, and predictions that do it."""

from typing import NamedTuple

import numpy as np
from torch import nn

from code_common.inference.magnification import enlarged, magnification, reduced_map
from code_common.inference.tiling import Read, Tiling, predict_prob, reader
from code_seg.convex import convex_instances
from code_seg.instances import components, within

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


class SizeLook(NamedTuple):
    """What a first look at an image tells of the size of its nuclei."""

    radius: float  # median radius of the nuclei in pixels; nan where nothing is found
    prob: np.ndarray | None  # probability [H, W] with one view; None for a large image


def look_for_size(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    points: np.ndarray | None,
    tiling: Tiling,
) -> SizeLook:
    """How large the nuclei are that a network finds in an image [H, W], or in parts of it.

    With points [N, 2] the nuclei are convex ones, since specks are many; without points they are
    the components.
    """
    areas, parts = [], _parts(shape, points)
    for row, col, rows, cols in parts:
        prob = predict_prob(network, read(row, col, rows, cols), tiling.one_view())
        found = components(prob, SPECK)
        if points is not None:
            inside = within(points - (row, col), (rows, cols))
            found = convex_instances(found, prob, inside, SPECK)
        areas.append(np.bincount(found[found > 0]))
    sizes = np.concatenate(areas)
    sizes = sizes[sizes > 0]
    radius = float(np.sqrt(np.median(sizes) / np.pi)) if len(sizes) else float("nan")
    return SizeLook(radius, prob if parts == [(0, 0, *shape)] else None)


def magnification_and_look(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    points: np.ndarray | None,
    tiling: Tiling,
    radius: float,
) -> tuple[float, np.ndarray | None]:
    """How much to magnify an image, so that its nuclei get a median radius of `radius` pixels.

    1 where they are large enough, or `radius` is 0. A first look of the network tells. Gives also
    the probability [H, W] of the first view, where the look has computed it and nothing is
    magnified, for `with_other_views`; else None.
    """
    if not radius:
        return 1.0, None
    look = look_for_size(network, read, shape, points, tiling)
    factor = magnification(look.radius, radius)
    return factor, look.prob if factor == 1 else None


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
    factor, first = magnification_and_look(network, read, shape, points, tiling, radius)
    if first is None:
        return predict_enlarged(network, image, tiling, factor)
    return with_other_views(network, image, tiling, first)


def with_other_views(
    network: nn.Module, image: np.ndarray, tiling: Tiling, first: np.ndarray
) -> np.ndarray:
    """The mean probability [H, W] over all views of an image [H, W, 3]; `first`: that of the first
    one, which a first look has computed.
    """
    if len(tiling.views) == 1:
        return first
    others = predict_prob(network, image, tiling.other_views())
    return others + (first - others) / len(tiling.views)
