"""What turns an image of any size into nuclei: networks, method, and how they are applied."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from code_common.errors import InputError
from code_common.inference.prediction import (
    detect_slide,
    mask_reader,
    prob_reader,
    probability_map,
    wanted_tiles,
    write_prob_rows,
)
from code_common.inference.slides import Slide
from code_common.inference.streaming import DiskMap, find_components
from code_common.inference.tiling import Tiling
from code_common.inference.trained_run import TrainedStage
from code_common.learning.stopwatch import Lap, no_lap
from code_seg.convex import convex_nuclei, kept_in_parts
from code_seg.given_points import PointNuclei
from code_seg.instances import PointsByRow, instances_in_parts, split_by_points
from code_seg.magnify import magnification_and_look, with_other_views
from code_seg.selection import check_method

# A part of an instance map: its first row and column, and the map [h, w] of its box.
Part = tuple[int, int, np.ndarray]


@dataclass(frozen=True)
class Segmenter:
    """What turns a slide into nuclei: networks, method, and how they are applied."""

    stage: TrainedStage
    detector: TrainedStage | None  # None: no points are needed
    method: str  # one of METHODS
    tiling: Tiling
    tissue: str  # as --tissue

    @property
    def min_area(self) -> int:
        """Smallest nucleus in square pixels."""
        return self.stage.settings["min_area"]

    def maps(
        self,
        slide: Slide,
        work: Path,
        key: str,
        points: np.ndarray | None = None,
        lap: Lap = no_lap,
    ) -> tuple[DiskMap, np.ndarray | None]:
        """Probability map of a slide, on the disk in `work`, and the points [N, 2] in it.

        The points are those that are given, or the detector's. A call that was stopped goes on, if
        `key` is the same.
        """
        wanted = wanted_tiles(slide, self.tissue, self.tiling.tile, points)
        if points is None and self.detector:
            points, _ = detect_slide(self.detector, slide, work, key, self.tiling, wanted)
            lap("detector")
        path, network = work / "nuclei.u16", self.stage.network
        radius = self.stage.settings["nucleus_radius"]
        factor, first = magnification_and_look(
            network, slide.read, slide.shape, points, self.tiling, radius
        )
        if radius:
            lap("first_look")
        if first is not None:
            image = slide.read(0, 0, *slide.shape)
            prob = with_other_views(network, image, self.tiling, first)
            probs = empty_map(path, slide.shape, np.uint16)
            write_prob_rows(probs, 0, prob, self.stage)
            lap("network")
            return probs, points
        probs = probability_map(self.stage, slide, path, key, self.tiling, wanted, factor)
        lap("network")
        return probs, points

    def nuclei(
        self, probs: DiskMap, points: np.ndarray | None, labels: DiskMap, work: Path
    ) -> Iterator[Part]:
        """The nuclei of a probability map, component by component, with ids 1, 2, ... in `labels`.

        `labels` is an empty map. The ids come in the order of the components' first pixels.
        """
        mask, read_prob, convex = mask_reader(probs, 0.5), prob_reader(probs), None
        by_points = self.method != "components" and points is not None
        by_row = PointsByRow(points if by_points else np.zeros((0, 2), int))
        # Convex nuclei are known only once all are there: till then they have a map of their own.
        if self.method == "convex":
            convex = empty_map(work / "candidates.u32", probs.shape)
        covered = convex or labels

        def divide(row: int, col: int, component: np.ndarray) -> np.ndarray:
            near = by_row.within(row, col, component.shape)
            if convex:
                prob = read_prob(row, col, *component.shape)
                return convex_nuclei(component, prob, near, self.min_area)
            return split_by_points(component.astype(np.int32), near, self.min_area)

        def is_covered(row: int, col: int) -> bool:
            return bool(covered.read(row, col, 1, 1)[0, 0])

        components = find_components(mask, probs.shape)
        parts = instances_in_parts(components, mask, divide, self.min_area, is_covered)
        if convex:
            parts = kept_in_parts(parts, read_prob, by_row, convex)
        return numbered(parts, labels)


def nuclei_of_points(
    segmenter: Segmenter, probs: DiskMap, points: np.ndarray, work: Path
) -> PointNuclei:
    """The nuclei of a probability map, one for each point [N, 2] of a user where there is one."""
    found = empty_map(work / "found.u32", probs.shape)
    nuclei = segmenter.nuclei(probs, points, found, work)
    return PointNuclei(nuclei, found, prob_reader(probs), points, segmenter.min_area)


def numbered(parts: Iterator[Part], labels: DiskMap) -> Iterator[Part]:
    """Parts with ids 1, 2, ... over all of them; each is written into `labels` before the next."""
    count = 0
    for row, col, instances in parts:
        present = np.bincount(instances.ravel()) > 0
        present[0] = False
        ids = np.where(present, count + np.cumsum(present), 0)[instances]
        count += int(present.sum())
        labels.write(row, col, np.where(ids > 0, ids, labels.read(row, col, *ids.shape)))
        yield row, col, ids


def empty_map(path: Path, shape: tuple[int, int], dtype: type = np.uint32) -> DiskMap:
    """A map of ids, or of something else, on the disk, whatever an earlier call left there."""
    path.unlink(missing_ok=True)
    return DiskMap(path, shape, dtype)


def make_segmenter(
    stages: dict[str, TrainedStage],
    path: Path,
    method: str,
    tiling: Tiling,
    tissue: str,
    detects: bool = True,
) -> Segmenter:
    """The segmenter of a trained run. method: one of METHODS, or auto: what the run chose.

    detects: whether points, where they are needed, come from its detector. Raises InputError, which
    names `path`, where the run does not hold what the method needs.
    """
    stage, detector = stages.get("segmentation"), stages.get("detection")
    if stage is None:
        raise InputError(f"{path}: holds no segmentation network")
    method = method if method != "auto" else stage.settings.get("instances")
    check_method(method, path)
    if method != "components" and detector is None and detects:
        raise InputError(
            f"{path}: holds no detector to split nuclei with; give the folder above "
            "detection/ and segmentation/, or --instances components"
        )
    # Points also tell how large the nuclei are, where that matters.
    needs_points = method != "components" or bool(stage.settings["nucleus_radius"])
    return Segmenter(stage, detector if needs_points else None, method, tiling, tissue)
