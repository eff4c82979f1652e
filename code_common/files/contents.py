"""What files are recognised by: hashes of what a run reads and of what its steps write."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    STAGES,
    detections_folder,
    marker_path,
    marker_paths,
    options_path,
    stage_folder,
)

# A step's marker: its seconds, unless it is to be done again, and the files that it wrote, unless
# it is of an older version: place in the run folder -> hash.
MARKER = {"seconds?": float, "files?": {str: str}}
# What options.json tells of the detections that stage 2 was made of, and of where they were.
MADE_OF = {"detections?": str, "detected?": [str]}
_PLACES = {"root_save_dir": str, "dataset": str, "ratio": float, "repeat": float, "save_dir": str}
MADE_IN = {"options": {**_PLACES, "detection_results_dir?": None}}


class Inputs(NamedTuple):
    """What the input files of a run are recognised by."""

    contents: str  # changes with a name, and with anything in a file
    beginnings: str  # as older runs noted it: of a file over 8 MB the first MB and the size count
    detections: str = ""  # the same as `contents`, of the detections of stage 1 alone
    annotated: str = ""  # of the points that stage 1 drew
    images: str = ""  # of the images and labels alone: what `contents` is for stage 1
    files: tuple[Path, ...] = ()  # all of these, in their order
    detected: tuple[str, ...] = ()  # names of the files of detections, in their order


def files_fingerprint(
    images: Sequence[ImageFiles],
    detections: Sequence[Path] = (),
    annotated: Sequence[Path] = (),
) -> Inputs:
    """Changes when the list of input files or a file's content does.

    detections, annotated: files of stage 1. Raises InputError where one of them is absent.
    """
    files = [f for i in images for f in (i.image, i.instances, i.points) if f]
    for path in (*detections, *annotated):
        if not path.is_file():
            raise InputError(f"{path}: no such file; run stage 1 first (code_detection/main.py)")
    contents, beginnings = [], []
    for path in [*files, *detections]:
        size, beginning, content = _size_and_hashes(path)
        contents.append((path.name, size, content))
        beginnings.append((path.name, size, content if size <= 8 << 20 else beginning))
    of_stage_1 = (hash_by_name(paths) for paths in (detections, annotated))
    of_images, names = fingerprint(contents[: len(files)]), tuple(path.name for path in detections)
    every = (*files, *detections, *annotated)
    return Inputs(
        fingerprint(contents), fingerprint(beginnings), *of_stage_1, of_images, every, names
    )


def hash_by_name(paths: Sequence[Path]) -> str:
    """Changes with the names and the contents of some files, which need not be there."""
    return fingerprint([(path.name, content_hash(path)) for path in paths])


def _size_and_hashes(path: Path) -> tuple[int, str, str]:
    """Size of a file, hash of its first megabyte, hash of its whole content."""
    with open(path, "rb") as file:
        content = hashlib.sha256(file.read(1 << 20))
        beginning = content.hexdigest()
        while part := file.read(1 << 20):
            content.update(part)
    return path.stat().st_size, beginning, content.hexdigest()


def content_hash(path: Path) -> str:
    """Hash of a file's content; '' where it is empty or no file."""
    if not path.is_file():
        return ""
    size, _, content = _size_and_hashes(path)
    return content[:16] if size else ""


def input_hash(path: Path) -> str:
    """`content_hash` of a file; of a folder of masks, which stands for one, a hash of all files."""
    return hash_by_name(sorted(path.iterdir())) if path.is_dir() else content_hash(path)


def stamp(path: Path) -> list[int]:
    """Size of a file, and when its content and when its place last changed.

    Without the last, two files of one size and time could be exchanged unseen.
    """
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def contents_of(folder: Path, places: Sequence[Path]) -> dict[str, str]:
    """Place -> `content_hash` of the files at some places of a run folder that are there."""
    return {str(p): content_hash(folder / p) for p in sorted(places) if (folder / p).is_file()}


def read_marker(folder: Path, step: str) -> dict:
    """What is noted of a step that was done: see MARKER. Raises InputError where it is damaged."""
    return read_json(marker_path(folder, step), MARKER)


def refuse_in_run(path: Path, flag: str) -> None:
    """Raise InputError where a file or folder to write lies in a run folder, among its results."""
    for folder in (path.resolve(), *path.resolve().parents):
        if options_path(folder).is_file():
            raise InputError(f"{flag} {path}: lies in the run folder {folder}; give another place")


def is_done(folder: Path, step: str) -> bool:
    """Whether a step of a run is done, and not to be done again."""
    try:
        return "seconds" in read_marker(folder, step)
    except InputError:  # not there, or damaged
        return False


def refuse_unfinished(folder: Path) -> None:
    """Raise InputError where what is in a run folder does not fit together.

    A step is to be done again, or stage 1 has other detections than stage 2 was made of.
    """
    for path in marker_paths(folder):
        if not is_done(folder, path.stem):
            raise InputError(
                f"{folder}: '{path.stem}' is to be done again; finish this run first, with the "
                "command that began it"
            )
    if options_path(folder).is_file():
        saved = read_json(options_path(folder), MADE_OF)
        found = _detections_of(folder) if saved.get("detected") else None
        names = saved.get("detected", ())
        if found and hash_by_name([found / n for n in names]) != saved.get("detections"):
            raise InputError(
                f"{folder}: made of other detections than those that are in {found} now; make "
                "it anew, with code_seg/main.py --restart"
            )


def _detections_of(folder: Path) -> Path | None:
    """Where the detections are that the stage 2 in a run folder was made of; None: no more there.

    They are sought where they were as seen from the run folder, since both may have been moved
    together, and then where options.json says.
    """
    options = read_json(options_path(folder), MADE_IN)["options"]
    root, dataset, ratio, repeat, save_dir = (options[name] for name in _PLACES)
    beside = stage_folder(Path(root), dataset, ratio, repeat, STAGES[0])
    noted = Path(str(options.get("detection_results_dir") or beside))
    moved = Path(os.path.normpath(folder / os.path.relpath(noted, save_dir)))
    return next(filter(Path.is_dir, map(detections_folder, (moved, noted))), None)
