"""A nucleus for each point that a user gives: found, cut, or grown where the network is unsure.

The paper knows no such step: its points train networks. These also say where the nuclei are.
"""

from array import array
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from code_common.arrays import fill_holes
from code_common.inference.streaming import DiskMap, ReadPart

Part = tuple[int, int, np.ndarray]  # first row, first column, ids [h, w]

USUAL = 10.0  # radius of a nucleus in pixels, where none is found to measure it by
# Lengths in radii of a nucleus.
BESIDE = 0.5  # a point this near to a nucleus without a point was set beside it
AROUND = 0.25  # a nucleus grows from the highest probability this near to its point
LARGEST = 1.5  # how far it grows
SMOOTH = 0.3  # deviation of the Gaussian that smooths the probability in which it grows
LEAST = 0.1  # probability under which nothing grows
FALL = 0.5  # share of the highest probability down to which it grows
NOTHING, SMALL, SHARED = "nothing seen there", "too small", "in the nucleus of another point"


def nearest(mask: np.ndarray, points: np.ndarray, min_area: int) -> np.ndarray:
    """A mask [H, W] bool divided into what is nearest to each point [N, 2]: int32 [H, W], 1 to M.

    A point whose part is under `min_area` pixels is left out, the smallest first.
    """
    pixels, out = np.argwhere(mask), np.zeros(mask.shape, np.int32)
    while True:
        number = cKDTree(points).query(pixels)[1]
        areas = np.bincount(number, minlength=len(points))
        if len(points) == 1 or areas.min() >= min_area:
            out[mask] = number + 1
            return out
        points = np.delete(points, areas.argmin(), axis=0)


def smooth(prob: np.ndarray, free: np.ndarray, deviation: float) -> np.ndarray:
    """A map [h, w] smoothed by a Gaussian that sees only what is free (1), and 0 elsewhere."""
    seen = cv2.GaussianBlur(free, (0, 0), deviation)
    summed = cv2.GaussianBlur(prob.astype(np.float32) * free, (0, 0), deviation)
    return free * summed / np.maximum(seen, 1e-3)


class PointNuclei:
    """The nuclei of an image on a map on the disk, and which point each belongs to.

    nuclei: parts with ids 1, 2, ..., which writes them into `labels`. read_prob reads the
    probability map. points [N, 2]: row and column, no two alike. min_area: of a nucleus in pixels.

    `ids` [N] is the number of each point's nucleus, 0 for none. `notes` [N] tells why there is
    none, or where it is not simply the one around the point.
    """

    def __init__(
        self,
        nuclei: Iterable[Part],
        labels: DiskMap,
        read_prob: ReadPart,
        points: np.ndarray,
        min_area: int,
    ):
        self.labels, self.read_prob, self.points = labels, read_prob, points
        self.min_area, self.boxes = min_area, []  # row, column, rows, columns of id 1, 2, ...
        self.ids, self.notes = np.zeros(len(points), np.int64), [""] * len(points)
        areas = array("d")
        for row, col, ids in nuclei:
            first = len(self.boxes)
            local = np.where(ids > 0, ids - first, 0).astype(np.int32)
            for rows, cols in ndimage.find_objects(local):
                height, width = rows.stop - rows.start, cols.stop - cols.start
                self.boxes.append((row + rows.start, col + cols.start, height, width))
            areas.extend(np.bincount(local.ravel())[1:])
        self.radius = float(np.sqrt(np.median(areas) / np.pi)) if areas else USUAL
        inside = [labels.read(row, col, 1, 1)[0, 0] for row, col in points.tolist()]
        self._share(np.array(inside, np.int64))
        for place in (self._beside, self._grown):
            for n in np.flatnonzero(self.ids == 0).tolist():
                if not self.notes[n]:
                    self.ids[n], self.notes[n] = place(n)

    def _box(self, k: int) -> tuple[int, int, np.ndarray]:
        """First row and column of a nucleus, and its mask [h, w]."""
        row, col, rows, cols = self.boxes[k - 1]
        return row, col, self.labels.read(row, col, rows, cols) == k

    def _add(self, row: int, col: int, mask: np.ndarray) -> int:
        """A new nucleus with a mask [h, w] from (row, column) on; returns its id."""
        (rows, cols), k = ndimage.find_objects(mask.astype(np.int32))[0], len(self.boxes) + 1
        row, col, mask = row + rows.start, col + cols.start, mask[rows, cols]
        before = self.labels.read(row, col, *mask.shape)
        self.labels.write(row, col, np.where(mask, k, before))
        self.boxes.append((row, col, *mask.shape))
        return k

    def _share(self, inside: np.ndarray) -> None:
        """Give each point its nucleus, of inside [N]. Of several in one, each has its share."""
        for k in np.unique(inside[inside > 0]).tolist():
            owners = np.flatnonzero(inside == k)
            row, col, mask = self._box(k)
            own = self.points[owners] - (row, col)
            pieces = nearest(mask, own, self.min_area)
            piece_of = pieces[own[:, 0], own[:, 1]]
            numbers = {}
            for piece in np.unique(pieces[pieces > 0]).tolist():
                numbers[piece] = k if not numbers else self._add(row, col, pieces == piece)
            for n, piece in zip(owners.tolist(), piece_of.tolist(), strict=True):
                if numbers[piece] in self.ids:
                    self.notes[n] = SHARED
                else:
                    self.ids[n] = numbers[piece]

    def _window(self, n: int, reach: float) -> tuple[int, int, np.ndarray, np.ndarray]:
        """What lies within `reach` pixels of a point: first row and column, ids, distances."""
        reach = int(np.ceil(reach))
        row, col = (self.points[n] - reach).clip(0).tolist()
        rows, cols = (self.points[n] + reach + 1 - (row, col)).tolist()
        ids = self.labels.read(row, col, rows, cols)
        y, x = np.ogrid[row : row + ids.shape[0], col : col + ids.shape[1]]
        return row, col, ids, np.hypot(y - self.points[n, 0], x - self.points[n, 1])

    def _beside(self, n: int) -> tuple[int, str]:
        """The nearest nucleus beside a point that has no point yet; 0 and '' for none."""
        _, _, ids, distance = self._window(n, BESIDE * self.radius)
        free = (ids > 0) & (distance <= BESIDE * self.radius) & ~np.isin(ids, self.ids)
        if not free.any():
            return 0, ""
        return int(ids[free][distance[free].argmin()]), "beside the point"

    def _grown(self, n: int) -> tuple[int, str]:
        """A nucleus of lower probability around a point; 0 and why there is none."""
        row, col, ids, distance = self._window(n, LARGEST * self.radius)
        free = (ids == 0).astype(np.float32)
        prob = smooth(self.read_prob(row, col, *ids.shape), free, SMOOTH * self.radius)
        near = np.where(distance <= max(1, AROUND * self.radius), prob, 0)
        highest = near.max()
        if highest < LEAST:
            return 0, NOTHING
        mask = (prob >= FALL * highest) & (distance <= LARGEST * self.radius)
        parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[1]
        mask = parts == parts[np.unravel_index(near.argmax(), near.shape)]
        mask = (fill_holes(mask.astype(np.uint8)) > 0) & (ids == 0)
        if mask.sum() < self.min_area:
            return 0, SMALL
        return self._add(row, col, mask), f"grown, probability {highest:.2f}"

    def kept(self, only_points: bool) -> list[int]:
        """The ids of all nuclei, or of those of points alone."""
        if only_points:
            return np.unique(self.ids[self.ids > 0]).tolist()
        return list(range(1, len(self.boxes) + 1))

    def parts(self, only_points: bool) -> Iterator[Part]:
        """The nuclei that are `kept` one by one, each as a mask [h, w] with the id 1."""
        for k in self.kept(only_points):
            row, col, mask = self._box(k)
            yield row, col, mask.astype(np.int32)

    def numbers(self, only_points: bool) -> np.ndarray:
        """The number [N] of each point's nucleus among those that are `kept`, 0 for none."""
        return np.searchsorted(self.kept(only_points), self.ids) + (self.ids > 0)
