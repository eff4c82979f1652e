"""What both predict.py have in common: their options, probability maps of images of any size."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import cv2
import numpy as np
import tifffile
from torch import Tensor

from code_common import distributed
from code_common.bundle import Trained
from code_common.config import check_bounds, check_choices, fingerprint
from code_common.data import read_json, whole_file, write_instances, write_json, write_table
from code_common.detections import detect_in_parts
from code_common.errors import InputError
from code_common.options import BIG, InferenceOptions
from code_common.shards import Results, choose_shard, do_share
from code_common.slides import Slide, find_slides, open_slide, padded, tissue, tissue_tiles
from code_common.streaming import DiskMap, find_components
from code_common.tiling import cutting, predict_rows

MAX = 65535  # what a probability of 1 is stored as
PICTURE = 4096  # longest side in pixels of an overlay
OME_TILE = 512


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
        check_choices(self, {"precision": ("auto", "fp32", "bf16"), "tissue": ("auto", "all")})
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
    activation: Callable,
    tiling: dict,
    wanted: Callable[[int, int], bool] | None,
) -> DiskMap:
    """The probability map of a slide, uint16 with MAX for 1, in the file `path`.

    What an earlier call with the same `key` left there is gone on from.
    """
    progress, first_row = path.with_suffix(".json"), 0
    if progress.is_file() and path.is_file() and (done := read_json(progress))["key"] == key:
        first_row = done["rows"]
    else:
        path.unlink(missing_ok=True)
    disk = DiskMap(path, slide.shape, np.uint16)
    read, shape = padded(slide, tiling["tile"])
    parts = predict_rows(
        stage.network, read, shape, activation, wanted=wanted, first_row=first_row, **tiling
    )
    for row, prob in parts:
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


class Strips:
    """Parts of a slide, read in strips that neighbouring parts share."""

    HEIGHT = 256

    def __init__(self, slide: Slide):
        self.slide, self.first, self.strip = slide, -1, None

    def read(self, row: int, col: int, rows: int, cols: int) -> np.ndarray:
        """The part [rows, cols, 3] uint8 from (row, col)."""
        if rows > self.HEIGHT:
            return self.slide.read(row, col, rows, cols)
        first = row // self.HEIGHT * self.HEIGHT
        if first != self.first:
            end = min(first + 2 * self.HEIGHT, self.slide.shape[0])
            self.strip = self.slide.read(first, 0, end - first, self.slide.shape[1])
            self.first = first
        return self.strip[row - first : row - first + rows, col : col + cols]


def reduced(slide: Slide, labels: DiskMap | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    """A picture of a slide of at most PICTURE pixels, its labels, and by what it was reduced."""
    by = -(-max(slide.shape) // PICTURE)
    height, width = (n // by * by for n in slide.shape)
    pictures, maps = [], []
    for row in range(0, height, 64 * by):
        rows = min(64 * by, height - row)
        size = width // by, rows // by
        part = slide.read(row, 0, rows, width)
        pictures.append(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
        if labels:  # the pixel in the middle
            maps.append(labels.read(row + by // 2, by // 2, rows - by // 2, width - by // 2, by))
    empty = np.zeros((0, 0), np.uint32)
    return np.concatenate(pictures), np.concatenate(maps) if maps else empty, by


def write_label_map(path: Path, labels: DiskMap, mpp: float | None, large: bool) -> None:
    """Write an instance map as TIFF or, where it is large, as a tiled OME-TIFF with a pyramid."""
    if not large:
        write_instances(path, labels.read(0, 0, *labels.shape))
        return
    levels = max(0, int(np.ceil(np.log2(max(labels.shape) / 1024))))

    def tiles(step: int) -> Iterable[np.ndarray]:
        side = OME_TILE * step
        for row in range(0, labels.shape[0], side):
            for col in range(0, labels.shape[1], side):
                part = labels.read(row, col, side, side, step)
                full = np.zeros((OME_TILE, OME_TILE), labels.dtype)
                full[: part.shape[0], : part.shape[1]] = part
                yield full

    size = {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm"} if mpp else {}
    size |= {"PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"} if mpp else {}
    with whole_file(path) as file, tifffile.TiffWriter(file, bigtiff=True, ome=True) as writer:
        for level in range(levels + 1):
            step = 2**level
            writer.write(
                tiles(step),
                shape=tuple(-(-n // step) for n in labels.shape),
                dtype=labels.dtype,
                tile=(OME_TILE, OME_TILE),
                compression="zlib",
                photometric="minisblack",
                subifds=levels if level == 0 else None,
                subfiletype=1 if level else 0,
                metadata={"axes": "YX", **size} if level == 0 else None,
            )


def detected_points(disk: DiskMap, settings: dict) -> np.ndarray:
    """Detections [N, 2] of a detector's probability map, by row and column."""
    rule = settings["threshold"], settings["min_area"], settings["max_area"]
    found = find_components(over(disk, rule[0]), disk.shape)
    points = [np.zeros((0, 2), np.int64), *detect_in_parts(found, read_prob(disk), *rule)]
    merged = np.concatenate(points)
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

    def activation(logits: Tensor) -> Tensor:
        return logits.sigmoid()

    disk = probability_map(stage, slide, work / "points.u16", key, activation, tiling, wanted)
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
