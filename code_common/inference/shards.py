"""Many images over many processes: which process does an image, which images are done."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_path
from code_common.files.writing import write_json
from code_common.learning import distributed

ALL = "0/1"  # the shard of a process that does every image
# name of an image -> the files written for it, and a JSON value to keep of it
Work = Callable[[str], tuple[Iterable[Path], object]]


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(I, N) of 'I/N': this process does every N-th image from I, which is 0 to N - 1.

    Where `text` is empty, a SLURM job array says it (SLURM_ARRAY_TASK_ID, _MIN, _COUNT); else
    (0, 1). Processes that work as one share the shard. Raises InputError.
    """
    index, count = 0, 1
    if text:
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        index, count = (int(n) for n in found.groups()) if found else (0, 0)
        if not index < count:
            raise InputError(f"--shard must be I/N with I from 0 to N - 1, not {text}")
    elif "SLURM_ARRAY_TASK_ID" in environment:
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
        index = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
        count = int(environment.get("SLURM_ARRAY_TASK_COUNT", index + 1))
    return index * distributed.size() + distributed.rank(), count * distributed.size()


def file_key(path: Path) -> str:
    """Changes when a file's content does; the whole file is read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class DoneFiles:
    """What is done in a folder: one small file for each image, written last.

    An image counts as done for the same `key` (weights and settings), unchanged input files (by
    size and time) and with all of its output files in place.
    """

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key

    def _key(self, inputs: Sequence[Path | None]) -> str:
        stats = [(str(p), p.stat()) for p in inputs if p and p.exists()]
        return fingerprint(self.key, [(p, s.st_size, s.st_mtime_ns) for p, s in stats])

    def get(self, name: str, inputs: Sequence[Path | None]) -> object:
        """What `put` was given for an image, or None where it is not done."""
        marker = marker_path(self.folder, name)
        if not marker.is_file():
            return None
        done = read_json(marker)
        whole = done["key"] == self._key(inputs)
        whole = whole and all((self.folder / f).is_file() for f in done["files"])
        return done["value"] if whole else None

    def put(
        self, name: str, inputs: Sequence[Path | None], files: Iterable[Path], value: object
    ) -> None:
        """Record that an image is done; `value` is any JSON value but null."""
        listed = [os.path.relpath(f, self.folder) for f in files]
        done = {"key": self._key(inputs), "files": listed, "value": value}
        write_json(marker_path(self.folder, name), done)


def process_shard(
    done: DoneFiles,
    inputs: Mapping[str, Sequence[Path | None]],
    work: Work,
    shard: str,
    title: str,
) -> dict[str, object]:
    """Do the images of a shard that are not done; returns the values of all that are, by name.

    inputs: name -> input files of an image. An image that cannot be read does not stop the others:
    the InputError at the end names it, and how many more there are.
    """
    names, failed = sorted(inputs), {}
    index, count = parse_shard(shard)
    quiet = None if distributed.is_main() else True
    for name in tqdm(names[index::count], desc=title, leave=False, disable=quiet):
        if done.get(name, inputs[name]) is None:
            try:
                files, value = work(name)
                done.put(name, inputs[name], files, value)
            except InputError as error:
                failed[name] = error
    if failed:
        more = f" (and {len(failed) - 1} more images failed)" if len(failed) > 1 else ""
        raise InputError(f"{next(iter(failed.values()))}{more}")
    distributed.wait_for_all()
    values = {name: done.get(name, inputs[name]) for name in inputs}
    return {name: value for name, value in values.items() if value is not None}
