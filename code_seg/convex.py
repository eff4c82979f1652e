"""Nuclei are convex: cut what is not, fill its gaps, and drop what too little speaks for."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import h_maxima

from code_common.arrays import distance_transform
from code_common.inference.streaming import DiskMap
from code_seg.instances import PointsByRow, cut, within
from code_seg.morphology import fill_holes

# Chosen by four folds of the training and validation tiles of MO (docs/experiments.md).
CONVEX = 0.88  # share of its convex hull that a single nucleus fills at least
# How much less deep a neck is than both its sides, of the largest depth, where it divides two
# nuclei: less where the whole is not convex, which says that it is not one nucleus.
NECK, NECK_OF_CONVEX = 0.1, 0.25
POSSIBLE = 0.25  # probability over which a gap in the hull belongs to the nucleus
NEAREST = 100  # detected nuclei around, whose median area is how large a nucleus is here
DETECTED, UNDETECTED = 0.2, 0.5  # share of that area which a nucleus must be sure of


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """Mask [H, W] bool of the smallest convex set that holds the pixels of a mask, not empty."""
    hull = np.zeros(mask.shape, np.uint8)
    corners = cv2.convexHull(cv2.findNonZero(mask.astype(np.uint8)))
    return cv2.fillConvexPoly(hull, corners, 1) > 0


def depth_maxima(mask: np.ndarray, neck: float) -> np.ndarray:
    """Points [N, 2], one in each part of a mask [H, W] bool that necks divide from the others.

    A neck is less deep than both its sides by the share `neck` of the largest depth.
    """
    depth = distance_transform(np.pad(mask, 1).astype(np.uint8))
    depth = cv2.GaussianBlur(depth, (0, 0), 1, borderType=cv2.BORDER_CONSTANT)[1:-1, 1:-1] * mask
    highest = (depth == cv2.dilate(depth, np.ones((3, 3), np.uint8))) & mask
    count, parts = cv2.connectedComponents(highest.astype(np.uint8), connectivity=8)
    if count > 2:  # else there is one maximum, as in most nuclei, and no need of the slower way
        count, parts = cv2.connectedComponents(h_maxima(depth, neck * depth.max()).astype(np.uint8))
    return np.array(ndimage.maximum_position(depth, parts, range(1, count)), int).reshape(-1, 2)


def cut_to_convex(mask: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """The nuclei int32 [H, W], 1 to N, of one connected component of a mask [H, W] bool.

    It is cut at its necks; where it has none and yet is not convex, between the points [N, 2] in
    it; and each piece again.
    """
    out, waiting, count = np.zeros(mask.shape, np.int32), [(0, 0, mask)], 0
    while waiting:
        row, col, own = waiting.pop()
        convex = own.sum() >= CONVEX * convex_hull(own).sum()
        pieces = cut(own, depth_maxima(own, NECK_OF_CONVEX if convex else NECK), min_area)
        if pieces.max() == 1 and not convex:
            near = within(points - (row, col), own.shape)
            pieces = cut(own, near[own[near[:, 0], near[:, 1]]], min_area)
        if pieces.max() == 1:
            count += 1
            out[row : row + own.shape[0], col : col + own.shape[1]][own] = count
            continue
        for k, (rows, cols) in enumerate(ndimage.find_objects(pieces), 1):
            waiting.append((row + rows.start, col + cols.start, pieces[rows, cols] == k))
    return out


def fill_gaps(nuclei: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Nuclei int32 [H, W] with what their convex hulls lack where the network is in doubt.

    Only pixels that no nucleus has are taken, by the first that wants them.
    """
    out, doubtful = nuclei.copy(), (prob > POSSIBLE) & (prob <= 0.5)
    for k, box in enumerate(ndimage.find_objects(nuclei), 1):
        own, free = nuclei[box] == k, out[box] == 0
        wanted = own | (convex_hull(own) & doubtful[box] & free)
        _, parts = cv2.connectedComponents(wanted.astype(np.uint8), connectivity=8)
        wanted = parts == parts[tuple(np.argwhere(own)[0])]
        out[box][fill_holes(wanted.astype(np.uint8)).astype(bool) & free] = k
    return out


class Evidence(NamedTuple):
    """What speaks for each of N nuclei."""

    areas: np.ndarray  # [N] in pixels
    sure: np.ndarray  # [N] in pixels: one of probability p counts 2p - 1
    detected: np.ndarray  # [N] bool: it holds a point
    centres: np.ndarray  # [N, 2] row and column


def evidence(nuclei: np.ndarray, prob: np.ndarray, points: np.ndarray, count: int) -> Evidence:
    """The evidence for nuclei [H, W] with ids 1 to `count`, of points [N, 2] and a map [H, W]."""
    rows, cols = np.nonzero(nuclei)
    ids = nuclei[rows, cols] - 1
    areas = np.bincount(ids, minlength=count)
    sure = np.bincount(ids, np.clip(2.0 * prob[rows, cols] - 1, 0, 1), minlength=count)
    sums = [np.bincount(ids, at, minlength=count) for at in (rows, cols)]
    detected = np.zeros(count + 1, bool)
    detected[nuclei[points[:, 0], points[:, 1]]] = True
    return Evidence(areas, sure, detected[1:], np.stack(sums, 1) / np.maximum(areas, 1)[:, None])


def supported(found: Evidence) -> np.ndarray:
    """Which nuclei [N] bool enough speaks for: how much that is depends on those around them."""
    known = np.flatnonzero(found.detected if found.detected.any() else found.areas > 0)
    if not len(known):
        return np.zeros(len(found.areas), bool)
    tree, near = cKDTree(found.centres[known]), min(NEAREST, len(known))
    typical = np.zeros(len(found.areas))
    for first in range(0, len(typical), 10_000):  # so that a slide's need not fit into memory
        part = slice(first, first + 10_000)
        nearest = tree.query(found.centres[part], range(1, near + 1))[1]
        typical[part] = np.median(found.areas[known][nearest], axis=1)
    needed = np.where(found.detected, DETECTED, UNDETECTED) * typical
    return (found.areas > 0) & (found.sure >= needed)


def convex_nuclei(
    component: np.ndarray, prob: np.ndarray, points: np.ndarray, min_area: int
) -> np.ndarray:
    """The nuclei int32 [h, w] of the box of one component [h, w] bool, whatever speaks for them."""
    return fill_gaps(cut_to_convex(component, points, min_area), prob)


def convex_instances(
    components: np.ndarray, prob: np.ndarray, points: np.ndarray, min_area: int
) -> np.ndarray:
    """Instance map int32 [H, W] of convex nuclei, of connected components [H, W] without holes.

    prob [H, W] is the probability map and points [N, 2] the detections; no cut leaves a piece under
    `min_area` square pixels. A pixel that two nuclei want is that of the component that begins
    further up.
    """
    points = within(points, components.shape)
    at = PointsByRow(points)
    out, last = np.zeros(components.shape, np.int32), 0
    labels, firsts = np.unique(components, return_index=True)
    boxes = ndimage.find_objects(components)
    for label, first in sorted(
        zip(labels.tolist(), firsts.tolist(), strict=True), key=lambda c: c[1]
    ):
        if label > 0 and not out.flat[first]:
            box = boxes[label - 1]
            own = components[box] == label
            near = at.within(box[0].start, box[1].start, own.shape)
            nuclei = convex_nuclei(own, prob[box], near, min_area)
            free = (nuclei > 0) & (out[box] == 0)
            out[box][free] = nuclei[free] + last
            last += int(nuclei.max())
    keep = np.append(False, supported(evidence(out, prob, points, last)))
    return np.where(keep[out], out, 0)


def supported_in_parts(
    parts: Iterable[tuple[int, int, np.ndarray]],
    read_prob: Callable[[int, int, int, int], np.ndarray],
    points: PointsByRow,
    candidates: DiskMap,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Of the nuclei of parts (first row, first column, nuclei of a box) those that are supported.

    A pixel that two parts want is the first one's. `candidates` is an empty map of the whole, for
    all of them, since it takes all to say how large a nucleus is.
    """
    boxes, measures, last = array("q"), array("d"), 0  # few bytes for each of a million nuclei
    for row, col, nuclei in parts:
        old = candidates.read(row, col, *nuclei.shape)
        own, count = np.where(old == 0, nuclei, 0), int(nuclei.max())
        near = points.within(row, col, own.shape)
        found = evidence(own, read_prob(row, col, *own.shape), near, count)
        found = found._replace(centres=found.centres + (row, col))
        measures.frombytes(np.column_stack(found).astype(float).tobytes())
        candidates.write(row, col, np.where(own > 0, own + last, old).astype(candidates.dtype))
        boxes.extend((row, col, *own.shape, last, count))
        last += count
    areas, sure, detected, *centres = np.array(measures).reshape(-1, 5).T
    keep = supported(Evidence(areas, sure, detected > 0, np.stack(centres, 1)))
    for row, col, height, width, first, count in np.array(boxes).reshape(-1, 6).tolist():
        own = candidates.read(row, col, height, width).astype(np.int64) - first
        own[(own < 0) | (own > count)] = 0
        yield row, col, np.where(np.append(False, keep[first : first + count])[own], own, 0)
