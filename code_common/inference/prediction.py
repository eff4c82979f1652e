"""What both predict.py have in common: probability maps and detections of images of any size."""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import torch

from code_common.annotations.text import some_names
from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.contents import input_hash, refuse_in_run
from code_common.files.images import NOTHING, grouped
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_paths
from code_common.files.writing import printable, write_json, write_table
from code_common.inference.detections import detect_in_parts
from code_common.inference.first_look import first_look
from code_common.inference.image_files import find_slides, left_out, refuse_shared
from code_common.inference.magnification import enlarged_slide, reduced_rows
from code_common.inference.shards import NOT_OURS, DoneFiles, process_shard, told_of_array
from code_common.inference.slides import (
    Slide,
    near,
    open_slide,
    padded,
    tissue,
    tissue_tiles,
)
from code_common.inference.streaming import DiskMap, find_components
from code_common.inference.tiling import Tiling, predict_rows, probability
from code_common.inference.trained_run import TrainedStage
from code_common.learning import distributed
from code_common.learning.stopwatch import Lap, Stopwatch
from code_common.options import PACKAGED, PROJECT, PredictOptions

MAX = 65535  # a probability of 1, as it is stored
SUMMARY, COCO, TIMES = "summary.csv", "coco.json", "times.csv"  # of all images
PAGE = "annotate.html"  # of all images, to correct their detections
UNKNOWN, MOST_SCALES = "not stated", 4  # what is said of the files' resolutions
LONGEST_ENDING = "_instances.ome.tif.tmp"  # of the names of results


def result_key(
    options: PredictOptions, stages: Iterable[TrainedStage], tiling: Tiling, *more: object
) -> str:
    """Changes with everything that a result depends on but the image."""
    keys = [stage.key for stage in stages]
    # Earlier versions did not scale small images, and told areas in pixels as they were read.
    frame = ("areas in pixels of the file",) if options.mpp else ()
    return fingerprint(
        keys, tiling.key(), options.mpp, options.file_mpp, options.tissue, (*more, *frame)
    )


def wanted_tiles(
    slide: Slide, which: str, tile: int, points: np.ndarray | None = None
) -> Callable[[int, int], bool] | None:
    """Which tiles of a slide are worth computing; None: all.

    Those with tissue, and those around the points [N, 2] of a user, who says that there is some.
    """
    if which == "all" or slide.thumbnail is None:
        return None
    mask = tissue(slide.thumbnail())
    return tissue_tiles(mask if points is None else mask | near(points, mask.shape), tile)


def _rows_done(progress: Path, path: Path, key: str, shape: tuple[int, int]) -> int:
    """How many rows of an unfinished probability map in the file `path` can be gone on from.

    0 for another key, and where one of the two files is absent or damaged.
    """
    whole = shape[0] * shape[1] * np.dtype(np.uint16).itemsize
    if not progress.is_file() or not path.is_file() or path.stat().st_size != whole:
        return 0
    try:
        done = read_json(progress)
        return int(done["rows"]) if done["key"] == key else 0
    except (InputError, KeyError, TypeError, ValueError):
        return 0


def probability_map(
    stage: TrainedStage,
    slide: Slide,
    path: Path,
    key: str,
    tiling: Tiling,
    wanted: Callable[[int, int], bool] | None,
    factor: float = 1.0,
) -> DiskMap:
    """The probability map of a slide, uint16 with MAX for 1, in the file `path`.

    The network sees the slide magnified by `factor`. A call that was stopped goes on, if `key` is
    the same.
    """
    progress = path.with_suffix(".json")
    first_row = _rows_done(progress, path, key, slide.shape)
    if first_row == 0:
        path.unlink(missing_ok=True)
    disk = DiskMap(path, slide.shape, np.uint16)
    read, shape = padded(enlarged_slide(slide, factor), tiling.tile)

    def wanted_enlarged(row: int, col: int) -> bool:
        return wanted is None or wanted(int(row / factor), int(col / factor))

    parts = predict_rows(
        stage.network,
        read,
        shape,
        probability,
        tiling,
        wanted=wanted_enlarged,
        first_row=round(first_row * factor),
    )
    for row, prob in reduced_rows(parts, slide.shape, factor):
        write_prob_rows(disk, row, prob[0, : slide.shape[0] - row, : slide.shape[1]], stage)
        disk.synchronise()
        write_json(progress, {"key": key, "rows": row + prob.shape[1]})
    return disk


def write_prob_rows(disk: DiskMap, row: int, prob: np.ndarray, stage: TrainedStage) -> None:
    """Write probabilities [h, W] in 0..1, from a row on, into a probability map.

    Raises InputError where they are no numbers.
    """
    if not np.isfinite(prob).all():
        raise InputError(f"{stage.path}: damaged weights; the probabilities are no numbers")
    disk.write(row, 0, np.rint(prob * MAX).astype(np.uint16))


def mask_reader(disk: DiskMap, threshold: float) -> Callable[[int, int, int, int], np.ndarray]:
    """Reads parts of where a probability map is larger than a threshold in 0..1."""
    return lambda *part: disk.read(*part) > threshold * MAX


def prob_reader(disk: DiskMap) -> Callable[[int, int, int, int], np.ndarray]:
    """Reads parts of a probability map as float32 in 0..1."""
    return lambda *part: disk.read(*part) / np.float32(MAX)


def detected_points(disk: DiskMap, settings: dict) -> np.ndarray:
    """Detections [N, 2] of a detector's probability map, by row and column."""
    mask = mask_reader(disk, settings["threshold"])
    parts = detect_in_parts(
        find_components(mask, disk.shape),
        mask,
        prob_reader(disk),
        settings["min_area"],
        settings["max_area"],
    )
    points = np.concatenate([np.zeros((0, 2), np.int64), *parts])
    return points[np.lexsort(points.T[::-1])]


def detect_slide(
    stage: TrainedStage,
    slide: Slide,
    work: Path,
    key: str,
    tiling: Tiling,
    wanted: Callable[[int, int], bool] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Detections [N, 2] of a slide and the probability [N] at each of them."""
    disk = probability_map(stage, slide, work / "points.u16", key, tiling, wanted)
    points = detected_points(disk, stage.settings)
    probs = [disk.read(row, col, 1, 1)[0, 0] / MAX for row, col in points.tolist()]
    return points, np.array(probs)


def scale_line(mpp: float | None, files: Counter[str]) -> str:
    """At which scale images were read. files: microns per pixel, or UNKNOWN -> number of files."""
    how = f"read at {mpp:g} microns per pixel" if mpp else "read as they are, not scaled (--mpp)"
    told = [f"{value} in {count}" for value, count in files.most_common(MOST_SCALES)]
    told += ["..."] if len(files) > MOST_SCALES else []
    of_files = f"; microns per pixel of the files: {', '.join(told)}" if told else ""
    return f"images are {how}{of_files}"


def write_times(out: Path, images: Mapping[str, Mapping[str, float]]) -> str:
    """Write where the time went, image by image; returns a line of the means.

    images: name -> part of the work -> seconds. They differ from call to call, so they are not
    in the table of results.
    """
    parts = list(dict.fromkeys(part for image in images.values() for part in image))
    rows = [[name, *(image.get(p, 0) for p in parts)] for name, image in sorted(images.items())]
    write_table(out / TIMES, ["image", *parts], rows)
    means = np.mean([row[1:] for row in rows], axis=0)
    told = ", ".join(f"{part} {mean:.2f}" for part, mean in zip(parts, means, strict=True))
    return f"seconds an image: {told.replace('_', ' ')}; {out / TIMES}"


def images_in(summary: Path) -> list[str]:
    """The first column of a table of all images; none where there is no table."""
    if not summary.is_file():
        return []
    with open(summary, newline="", encoding="utf-8") as file:
        return [row[0] for row in csv.reader(file) if row]


def form_of(columns: Sequence[str]) -> dict:
    """The form of what `predict_all` notes of an image, as `read_json` takes it."""
    return {"row": {column: float for column in columns}, "lines": [str], "file_mpp": str,
            "seconds": {str: float}}  # fmt: skip


def lines_of(done: Iterable[dict]) -> list[str]:
    """What a user should know of the images that are done. done: notes of `form_of`."""
    return grouped(line for value in done for line in value["lines"])


def refuse_other_kind(
    out: Path, results: Mapping[str, Iterable[str]], endings: Sequence[str]
) -> None:
    """Raise InputError where an image has no file with such an ending: it would lose its files.

    results: name -> its files, as `DoneFiles.results` gives them. Both predict.py note what is
    done in one place.
    """
    for name, files in results.items():
        if not {f"{name}_{ending}" for ending in endings} & set(files):
            raise InputError(
                f"{out}: holds results of the other predict.py ({min(files)}, ...); give another "
                "--out"
            )


def predict_all(
    options: PredictOptions,
    key: str,
    columns: Sequence[str],
    endings: Sequence[str],
    work: Callable[[str, Slide, Path, str, Lap], tuple[list[Path], dict[str, float], list[str]]],
    processes: int,
    beside: Mapping[str, Path | None] | None = None,
) -> tuple[str, dict[str, dict[str, float]]]:
    """Do every image of this shard that is not done, up to `processes` at a time.

    `work(name, slide, folder for unfinished maps, key, lap)` writes an image's results, and calls
    `lap` behind each part of that. It returns their paths, the numbers of its row of summary.csv,
    by its `columns`, and lines that a user should know. The table is written when all images are
    done. endings: those that results may have behind an image's name; where a file of such a name
    is there that no call has written, the image is an error. beside: name -> another file that an
    image's result depends on, None where `work` says why there is none; other images are left out.
    Returns what to tell, and the rows of all images that are done, by name. Raises InputError, also
    where such a file of all images is there, and where results of other endings are.
    """
    refuse_in_run(options.out, "--out")
    done_files, failure = DoneFiles(options.out, key, form_of(columns)), None
    earlier = done_files.results()
    refuse_other_kind(options.out, earlier, endings)
    for table in (SUMMARY, COCO, TIMES, PAGE):
        if (options.out / table).exists() and not marker_paths(options.out):
            raise InputError(f"{options.out / table}: {NOT_OURS}")
    images = find_slides(list(options.images))
    inputs = {name: tuple(files) for name, files in images.items()}
    if beside is not None:
        inputs = {name: (*inputs[name], file) for name, file in beside.items()}
    if distributed.is_main():
        for line in left_out(list(options.images)):
            print(printable(line))
    if options.model == PACKAGED and distributed.is_main():
        card = PACKAGED.with_suffix(".md").relative_to(PROJECT)
        print(f"model: the one that comes with this project; its scores and limits: {card}")

    def predict_one(name: str) -> tuple[list[Path], dict]:
        for table in (SUMMARY, COCO, TIMES, PAGE):  # of all images as they were
            (options.out / table).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.stat(options.out / f".{name}{LONGEST_ENDING}")  # too long? Before the work
        refuse_shared(images[name])
        watch = Stopwatch(torch.device("cpu"))
        with closing(open_slide(images[name][0], options.mpp, options.file_mpp)) as slide:
            files, note = predict_slide(name, slide, watch)
        note["seconds"] = {part: round(took, 3) for part, took in watch.seconds().items()}
        return files, note

    def predict_slide(name: str, slide: Slide, watch: Stopwatch) -> tuple[list[Path], dict]:
        lines = list(slide.notes)
        look = slide.thumbnail and options.tissue == "auto"  # which needs the thumbnail anyway
        if look and not tissue(slide.thumbnail()).any():
            lines.append(f"{images[name][0]}: {NOTHING}")
        folder = options.out / ".work" / name
        key_of_work = fingerprint(key, *map(input_hash, filter(None, inputs[name])))
        watch.lap("read")
        files, row, more = work(name, slide, folder, key_of_work, watch.lap)
        shutil.rmtree(folder, ignore_errors=True)
        file_mpp = f"{slide.file_mpp:.3g}" if slide.file_mpp else UNKNOWN
        lines = [printable(line) for line in lines + more]
        return files, {"row": row, "lines": lines, "file_mpp": file_mpp}

    try:
        done = process_shard(
            done_files, inputs, predict_one, options.shard, "predicting", processes, endings
        )
    except InputError as error:  # of some images
        failure = error
        notes = {name: done_files.get(name, files) for name, files in inputs.items()}
        done = {name: note for name, note in notes.items() if note}
    rows = {name: value["row"] for name, value in done.items()}
    if distributed.is_main():
        print(scale_line(options.mpp, Counter(value["file_mpp"] for value in done.values())))
        table = [] if failure else first_look(rows)
        for line in [*table, *lines_of(done[name] for name in sorted(done))]:
            print(line)
        if others := sorted(earlier.keys() - inputs.keys()):
            print(
                f"results of other images of earlier calls lie in {options.out} and are not in "
                f"{SUMMARY}: {some_names(others)}"
            )
    if failure:
        raise failure
    if len(rows) < len(inputs):
        waiting = f"{SUMMARY} waits for all of them{told_of_array(options.shard)}"
        return f"{len(rows)} of {len(inputs)} images are done; {waiting}", rows
    if distributed.is_main():
        lines = [[name, *(row[c] for c in columns)] for name, row in sorted(rows.items())]
        before = images_in(options.out / SUMMARY)
        write_table(options.out / SUMMARY, ["image", *columns], lines)
        if images_in(options.out / SUMMARY) != before:
            for of_others in (COCO, PAGE):
                (options.out / of_others).unlink(missing_ok=True)
        print(write_times(options.out, {name: note["seconds"] for name, note in done.items()}))
    nuclei = sum(row["nuclei"] for row in rows.values())
    return f"{nuclei} nuclei in {len(inputs)} images; see {options.out}", rows
