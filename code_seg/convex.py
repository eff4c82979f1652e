"""Convex nuclei: split components at necks, fill their gaps, and remove weakly supported nuclei.

The paper takes connected components as nuclei. This method is not part of it.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import h_maxima

from code_common.arrays import distance_transform, fill_holes, framed
from code_common.inference.streaming import DiskMap, ReadPart
from code_seg.instances import PointsByRow, cut, within

# Chosen by four folds of the training and validation tiles of MO (lab_notebook.md in docs).
CONVEX = 0.88  # a mask is convex if it fills at least this share of its convex hull
# A neck divides two nuclei if it is less deep than both its sides by this share of the largest
# depth. A mask that is not convex is more likely several nuclei, so a smaller share is enough.
NECK, NECK_OF_CONVEX = 0.1, 0.25
POSSIBLE = 0.25  # a gap in the hull belongs to the nucleus where the probability is over this
NEAREST = 100  # number of detected nuclei whose median area is the typical area near a nucleus
# A nucleus is kept if its weighted area is at least this share of the typical area, with and
# without a detection in it.
DETECTED, UNDETECTED = 0.2, 0.5


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """Mask [H, W] bool of the convex hull of a mask [H, W], which must not be empty."""
    hull = np.zeros(mask.shape, np.uint8)
    outlines = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    corners = cv2.convexHull(np.concatenate(outlines))
    return cv2.fillConvexPoly(hull, corners, 1) > 0


def depth_maxima(mask: np.ndarray, neck: float) -> np.ndarray:
    """Points [N, 2] (row, column), one in each part of a mask [H, W] bool that necks separate.

    Depth is the distance to the background. A neck is less deep than both its sides by the share
    `neck` of the largest depth.
    """
    depth = distance_transform(framed(mask.astype(np.uint8)))
    depth = cv2.GaussianBlur(depth, (0, 0), 1, borderType=cv2.BORDER_CONSTANT)[1:-1, 1:-1] * mask
    highest = (depth == cv2.dilate(depth, np.ones((3, 3), np.uint8))) & mask
    count, parts = cv2.connectedComponents(highest.astype(np.uint8), connectivity=8)
    least = neck * depth.max()
    if count > 2 and not has_one_maximum(depth, highest, least):
        count, parts = cv2.connectedComponents(h_maxima(depth, least).astype(np.uint8))
        if count > 2:
            places = ndimage.maximum_position(depth, parts, range(1, count))
            return np.array(places, int).reshape(-1, 2)
    return np.array(np.unravel_index(depth.argmax(), depth.shape)).reshape(1, 2)


def has_one_maximum(depth: np.ndarray, highest: np.ndarray, least: float) -> bool:
    """Whether `h_maxima`, which is slow, surely finds one maximum in a depth [H, W] >= 0.

    highest [H, W] bool: the pixels that are no less deep than their neighbours. From each of them
    a way leads to a deeper pixel and falls by less than `least`. Where a difference is so small
    that the rounding in `h_maxima` may decide, this is False.
    """
    for row, col in np.argwhere(highest & (depth < depth.max())).tolist():
        top = depth[row, col]
        parts = cv2.connectedComponents((depth > top - 0.999 * least).astype(np.uint8))[1]
        if depth[parts == parts[row, col]].max() < 1.0001 * top:
            return False
    return np.count_nonzero(depth == depth.max()) == 1


def cut_to_convex(mask: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """Divide one connected component, a mask [H, W] bool, into nuclei: int32 [H, W], 1 to N.

    The component is cut at its necks. If it has no neck and is not convex, it is cut between the
    points [N, 2] in it. Each piece is divided in the same way. No cut leaves a piece under
    `min_area` pixels.
    """
    out, waiting, count = np.zeros(mask.shape, np.int32), [(0, 0, mask)], 0
    while waiting:
        row, col, piece = waiting.pop()
        area, hull_area = np.count_nonzero(piece), np.count_nonzero(convex_hull(piece))
        is_convex = area >= CONVEX * hull_area
        neck = NECK_OF_CONVEX if is_convex else NECK
        parts = cut(piece, depth_maxima(piece, neck), min_area)
        if parts.max() == 1 and not is_convex:
            in_box = within(points - (row, col), piece.shape)
            parts = cut(piece, in_box[piece[in_box[:, 0], in_box[:, 1]]], min_area)
        if parts.max() == 1:
            count += 1
            out[row : row + piece.shape[0], col : col + piece.shape[1]][piece] = count
            continue
        for k, (rows, cols) in enumerate(ndimage.find_objects(parts), 1):
            waiting.append((row + rows.start, col + cols.start, parts[rows, cols] == k))
    return out


def fill_gaps(nuclei: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Fill the gaps in the convex hulls of nuclei int32 [H, W] where the network is in doubt.

    prob [H, W] is the probability map. Only free pixels are filled. If two nuclei have a gap in
    common, the one with the lower id gets it.
    """
    out, doubtful = nuclei.copy(), (prob > POSSIBLE) & (prob <= 0.5)
    for k, box in enumerate(ndimage.find_objects(nuclei), 1):
        nucleus, free = nuclei[box] == k, out[box] == 0
        filled = nucleus | (convex_hull(nucleus) & doubtful[box] & free)
        _, parts = cv2.connectedComponents(filled.astype(np.uint8), connectivity=8)
        filled = parts == parts.flat[nucleus.argmax()]
        out[box][fill_holes(filled.astype(np.uint8)).astype(bool) & free] = k
    return out


class Evidence(NamedTuple):
    """The evidence for each of N nuclei."""

    areas: np.ndarray  # [N] in pixels
    weighted_area: np.ndarray  # [N] in pixels; a pixel of probability p > 0.5 counts 2 p - 1
    detected: np.ndarray  # [N] bool: the nucleus contains a detection
    centres: np.ndarray  # [N, 2] row and column


def evidence(nuclei: np.ndarray, prob: np.ndarray, points: np.ndarray, count: int) -> Evidence:
    """The evidence for the nuclei [H, W] with ids 1 to `count`.

    prob [H, W]: probability map; points [N, 2]: detections (row, column).
    """
    rows, cols = np.nonzero(nuclei)
    ids = nuclei[rows, cols] - 1
    areas = np.bincount(ids, minlength=count)
    weights = np.clip(2.0 * prob[rows, cols] - 1, 0, 1)
    weighted_area = np.bincount(ids, weights, minlength=count)
    sums = np.stack([np.bincount(ids, axis, minlength=count) for axis in (rows, cols)], 1)
    centres = sums / np.maximum(areas, 1)[:, None]
    detected = np.zeros(count + 1, bool)  # 0: the background
    detected[nuclei[points[:, 0], points[:, 1]]] = True
    return Evidence(areas, weighted_area, detected[1:], centres)


def has_enough_evidence(nuclei: Evidence) -> np.ndarray:
    """Which nuclei to keep: [N] bool.

    The weighted area must reach a share of the typical area. That is the median area of the
    NEAREST detected nuclei or, if none is detected, of all nuclei.
    """
    known = np.flatnonzero(nuclei.detected if nuclei.detected.any() else nuclei.areas > 0)
    if not len(known):
        return np.zeros(len(nuclei.areas), bool)
    tree, count = cKDTree(nuclei.centres[known]), min(NEAREST, len(known))
    typical = np.zeros(len(nuclei.areas))
    for first in range(0, len(typical), 10_000):  # in parts, because a slide has many nuclei
        part = slice(first, first + 10_000)
        nearest = tree.query(nuclei.centres[part], range(1, count + 1))[1]
        typical[part] = np.median(nuclei.areas[known][nearest], axis=1)
    needed = np.where(nuclei.detected, DETECTED, UNDETECTED) * typical
    return (nuclei.areas > 0) & (nuclei.weighted_area >= needed)


def convex_nuclei(
    component: np.ndarray, prob: np.ndarray, points: np.ndarray, min_area: int
) -> np.ndarray:
    """The nuclei int32 [h, w], 1 to N, of one connected component, before any is removed.

    component [h, w] bool, prob [h, w] and points [N, 2] (row, column) are those of its bounding
    box; `min_area` is in pixels.
    """
    return fill_gaps(cut_to_convex(component, points, min_area), prob)


def convex_instances(
    components: np.ndarray, prob: np.ndarray, points: np.ndarray, min_area: int
) -> np.ndarray:
    """Instance map int32 [H, W] of convex nuclei.

    components [H, W]: connected components without holes; prob [H, W]: probability map; points
    [N, 2]: detections (row, column); min_area: least area of a piece in pixels. If the nuclei of
    two components have a gap in common, the component whose first pixel is further up gets it.
    """
    points = within(points, components.shape)
    by_row = PointsByRow(points)
    out, last = np.zeros(components.shape, np.int32), 0
    labels, firsts = np.unique(components, return_index=True)
    boxes = ndimage.find_objects(components)
    order = np.argsort(firsts)
    for label, first in zip(labels[order].tolist(), firsts[order].tolist(), strict=True):
        # A component whose first pixel is taken lies in the filled gap of another one.
        if label > 0 and not out.flat[first]:
            box = boxes[label - 1]
            component = components[box] == label
            inside = by_row.within(box[0].start, box[1].start, component.shape)
            nuclei = convex_nuclei(component, prob[box], inside, min_area)
            free = (nuclei > 0) & (out[box] == 0)
            out[box][free] = nuclei[free] + last
            last += int(nuclei.max())
    keep = np.append(False, has_enough_evidence(evidence(out, prob, points, last)))
    return np.where(keep[out], out, 0)


def kept_in_parts(
    parts: Iterable[tuple[int, int, np.ndarray]],
    read_prob: ReadPart,
    points: PointsByRow,
    candidates: DiskMap,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The nuclei with enough evidence, part by part, for an image of any size.

    Takes and gives parts (row, column, nuclei int32 [h, w] of a box that begins there). A pixel
    that two parts have in common belongs to the first one. `read_prob` reads parts of the
    probability map. `candidates` is an empty map of the whole image. It keeps all nuclei until the
    last part is there, because the typical area depends on all of them.
    """
    boxes, measures, last = array("q"), array("d"), 0  # few bytes for each of a million nuclei
    for row, col, nuclei in parts:
        earlier = candidates.read(row, col, *nuclei.shape)
        ids, count = np.where(earlier == 0, nuclei, 0), int(nuclei.max())
        inside = points.within(row, col, ids.shape)
        of_part = evidence(ids, read_prob(row, col, *ids.shape), inside, count)
        of_part = of_part._replace(centres=of_part.centres + (row, col))
        measures.frombytes(np.column_stack(of_part).astype(float).tobytes())
        merged = np.where(ids > 0, ids + last, earlier)
        candidates.write(row, col, merged.astype(candidates.dtype))
        boxes.extend((row, col, *ids.shape, last, count))
        last += count
    areas, weighted_area, detected, *centres = np.array(measures).reshape(-1, 5).T
    keep = has_enough_evidence(Evidence(areas, weighted_area, detected > 0, np.stack(centres, 1)))
    for row, col, height, width, first, count in np.array(boxes).reshape(-1, 6).tolist():
        ids = candidates.read(row, col, height, width).astype(np.int64) - first
        ids[(ids < 0) | (ids > count)] = 0
        yield row, col, np.where(np.append(False, keep[first : first + count])[ids], ids, 0)
