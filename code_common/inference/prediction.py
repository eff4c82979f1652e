"""What both predict.py have in common: their options, probability maps of images of any size."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from code_common.config import check_bounds, check_choices, fingerprint
from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.writing import write_json, write_table
from code_common.inference.detections import detect_in_parts
from code_common.inference.magnification import enlarged_slide, reduced_rows
from code_common.inference.shards import Results, choose_shard, do_share
from code_common.inference.slides import (
    Slide,
    find_slides,
    open_slide,
    padded,
    tissue,
    tissue_tiles,
)
from code_common.inference.streaming import DiskMap, find_components
from code_common.inference.tiling import cutting, predict_rows, probability
from code_common.inference.trained_run import Trained
from code_common.learning import distributed
from code_common.options import BIG, InferenceOptions

MAX = 65535  # what a probability of 1 is stored as


@dataclass(frozen=True)
class PredictOptions(InferenceOptions):
    """Options of prediction on images without labels."""

    model: Path | None = None  # a run's folder (.../repeat_1), or the file it was exported to
    images: tuple[Path, ...] = ()  # images, whole slides, or folders of them
    out: Path | None = None  # folder of the results
    mpp: float | None = None  # microns per pixel to read the images at, which is that of the
    #   training images; none: images are read as they are
    file_mpp: float | None = None  # microns per pixel of the files, where they do not say it
    tissue: str = "auto"  # auto: glass is left out of images over 8192 x 8192 pixels; or all

    BOUNDS: ClassVar[dict] = {
        "tile": (32, BIG),
        "test_batch_size": (1, BIG),
        "mpp": (0.01, 100),
        "file_mpp": (0.01, 100),
    }

    def resolved(self) -> "PredictOptions":
        """The options, checked; raises InputError."""
        for name in ("model", "images", "out"):
            if not getattr(self, name):
                raise InputError(f"--{name} is missing (--help lists every option)")
        check_bounds(self, {**self.BOUNDS, "overlap": (0, self.tile - 1)})
        check_choices(self, {**self.INFERENCE_CHOICES, "tissue": ("auto", "all")})
        return self

    def slides(self) -> dict[str, Path]:
        """The images by the name of their results."""
        return find_slides(list(self.images))

    def open(self, path: Path) -> Slide:
        """One of the images."""
        return open_slide(path, self.mpp, self.file_mpp)

    def key(self, stages: Iterable[Trained], tiling: dict, *more: object) -> str:
        """Changes with everything that a result depends on but the image."""
        own = [stage.key for stage in stages]
        return fingerprint(own, cutting(tiling), self.mpp, self.file_mpp, self.tissue, more)


def wanted_tiles(slide: Slide, which: str, tile: int) -> Callable[[int, int], bool] | None:
    """Which tiles of a slide are worth computing; None: all."""
    if which == "all" or slide.thumbnail is None:
        return None
    return tissue_tiles(tissue(slide.thumbnail()), tile)


def probability_map(
    stage: Trained,
    slide: Slide,
    path: Path,
    key: str,
    tiling: dict,
    wanted: Callable[[int, int], bool] | None,
    factor: float = 1.0,
) -> DiskMap:
    """The probability map of a slide, uint16 with MAX for 1, in the file `path`.

    The network sees the slide magnified by `factor`. What an earlier call with the same `key` left
    there is gone on from.
    """
    progress, first_row = path.with_suffix(".json"), 0
    if progress.is_file() and path.is_file() and (done := read_json(progress))["key"] == key:
        first_row = done["rows"]
    else:
        path.unlink(missing_ok=True)
    disk = DiskMap(path, slide.shape, np.uint16)
    read, shape = padded(enlarged_slide(slide, factor), tiling["tile"])
    seen = wanted and (lambda row, col: wanted(int(row / factor), int(col / factor)))
    parts = predict_rows(
        stage.network, read, shape, probability,
        wanted=seen, first_row=round(first_row * factor), **tiling,
    )  # fmt: skip
    for row, prob in reduced_rows(parts, slide.shape, factor):
        part = prob[0, : slide.shape[0] - row, : slide.shape[1]]
        disk.write(row, 0, np.rint(part * MAX).astype(np.uint16))
        write_json(progress, {"key": key, "rows": row + prob.shape[1]})
    return disk


def over(disk: DiskMap, threshold: float) -> Callable[[int, int, int, int], np.ndarray]:
    """A reader of where a probability map is larger than a threshold in 0..1."""
    return lambda *part: disk.read(*part) > threshold * MAX


def read_prob(disk: DiskMap) -> Callable[[int, int, int, int], np.ndarray]:
    """A reader of a probability map as float32 in 0..1."""
    return lambda *part: disk.read(*part) / np.float32(MAX)


def detected_points(disk: DiskMap, settings: dict) -> np.ndarray:
    """Detections [N, 2] of a detector's probability map, by row and column."""
    mask, areas = over(disk, settings["threshold"]), (settings["min_area"], settings["max_area"])
    found = find_components(mask, disk.shape)
    points = detect_in_parts(found, mask, read_prob(disk), *areas)
    merged = np.concatenate([np.zeros((0, 2), np.int64), *points])
    return merged[np.lexsort(merged.T[::-1])]


def detect_slide(
    stage: Trained,
    slide: Slide,
    work: Path,
    key: str,
    tiling: dict,
    wanted: Callable[[int, int], bool] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Detections [N, 2] of a slide and the probability [N] at each of them."""
    disk = probability_map(stage, slide, work / "points.u16", key, tiling, wanted)
    points = detected_points(disk, stage.settings)
    probs = [disk.read(row, col, 1, 1)[0, 0] / MAX for row, col in points.tolist()]
    return points, np.array(probs)


def predict_all(
    options: PredictOptions,
    key: str,
    work: Callable[[str, Slide, Path, str], tuple[list[Path], dict]],
) -> tuple[str, dict[str, dict]]:
    """Do every image of this shard that is not done; returns what to tell, and the rows of all
    images that are done, by name.

    `work(name, slide, folder for unfinished maps, key)` writes an image's results and returns
    their paths and a row of summary.csv, which is written when all images are done.
    """

    def do(name: str, path: Path) -> tuple[list[Path], dict]:
        folder, stat = options.out / ".work" / name, path.stat()
        own = fingerprint(key, stat.st_size, stat.st_mtime_ns)
        result = work(name, options.open(path), folder, own)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    slides = options.slides()
    images = {n: ((path,), lambda n=n, path=path: do(n, path)) for n, path in slides.items()}
    shard = choose_shard(options.shard)
    done = do_share(Results(options.out, key), images, shard, "predicting")
    if len(done) < len(images):
        waiting = "summary.csv waits for all of them"
        return f"{len(done)} of {len(images)} images are done; {waiting}", done
    nuclei = sum(row["nuclei"] for row in done.values())
    if distributed.rank() == 0:
        rows = [[name, *row.values()] for name, row in sorted(done.items())]
        columns = ["image", *next(iter(done.values()))]
        write_table(options.out / "summary.csv", columns, rows)
    return f"{nuclei} nuclei in {len(images)} images; see {options.out}", done
