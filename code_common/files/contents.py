"""What files are recognised by: hashes of what a run reads and of what its steps write."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles


class Inputs(NamedTuple):
    """What the input files of a run are recognised by."""

    contents: str  # changes with a name, and with anything in a file
    beginnings: str  # as older runs noted it: of a file over 8 MB the first MB and the size count
    detections: str = ""  # the same as `contents`, of the detections of stage 1 alone
    annotated: str = ""  # of the points that stage 1 drew


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
    of_stage_1 = (
        fingerprint([(path.name, content_hash(path)) for path in paths])
        for paths in (detections, annotated)
    )
    return Inputs(fingerprint(contents), fingerprint(beginnings), *of_stage_1)


def _size_and_hashes(path: Path) -> tuple[int, str, str]:
    """Size of a file, hash of its first megabyte, hash of its whole content."""
    with open(path, "rb") as file:
        content = hashlib.sha256(file.read(1 << 20))
        beginning = content.hexdigest()
        while part := file.read(1 << 20):
            content.update(part)
    return path.stat().st_size, beginning, content.hexdigest()


def content_hash(path: Path) -> str:
    """Hash of a file's content; '' where it is empty or not there."""
    if not path.is_file():
        return ""
    size, _, content = _size_and_hashes(path)
    return content[:16] if size else ""


def contents_of(folder: Path, places: Sequence[str]) -> dict[str, str]:
    """The files at some places of a run folder (`Step.writes`): place -> `content_hash`."""
    files = [f for place in places for f in (folder / place, *(folder / place).rglob("*"))]
    names = [f.relative_to(folder) for f in files if f.is_file()]
    # Hidden files are markers and locks of single images.
    shown = sorted(str(n) for n in names if not any(part.startswith(".") for part in n.parts))
    return {name: content_hash(folder / name) for name in shown}
