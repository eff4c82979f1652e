"""The steps of a run: done ones are skipped, the others print one line with the time left."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from code_common.config import as_json, fingerprint, flag_of
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.reading import image_shape, read_json
from code_common.files.run_folder import CACHE, last_path, marker_path, marker_paths, options_path
from code_common.files.writing import write_json
from code_common.launch import choose_device
from code_common.learning import distributed
from code_common.learning.hardware import describe
from code_common.learning.patches import windows
from code_common.old_runs import options_today, refuse_removed, rename_files
from code_common.options import CommonOptions

try:
    import fcntl
except ImportError:  # Windows, where nothing but the user keeps two processes apart
    fcntl = None

# The workers of a killed run notice after a few seconds, and hold its lock until then.
LOCK_PATIENCE_S = 10.0
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Step:
    """A part of a run that is done once."""

    name: str
    # () -> what its line tells, or facts by name that options.json shall keep
    action: Callable[[], str | dict | None]
    work: float = 0.0  # megapixels through the network: what it is worth in time
    together: bool = False  # of several processes all do it, else the first
    tidy: Callable[[], None] | None = None  # removes what is not needed once the step is done


def training_work(images: Sequence[ImageFiles], options: CommonOptions, epochs: int) -> float:
    """Work of training in megapixels through the network, three passes a step."""
    patches = sum(len(windows(image_shape(i.image), options.patch_size)) for i in images)
    return 3e-6 * epochs * patches * options.input_size**2


def inference_work(images: Sequence[ImageFiles], options: CommonOptions, views: int) -> float:
    """Work of inference in megapixels through the network."""
    tiling = options.tile, options.overlap
    tiles = sum(len(windows(image_shape(i.image), *tiling)) for i in images)
    return 1e-6 * tiles * options.tile**2 * views


def validation_work(images: Sequence[ImageFiles], options: CommonOptions, epochs: int) -> float:
    """Work of all validations of a training in megapixels through the network."""
    return -(-epochs // options.val_every) * inference_work(images, options, views=1)


def files_fingerprint(images: Sequence[ImageFiles], others: Sequence[Path] = ()) -> str:
    """Changes when the list of input files or a file's content does.

    Of a file over 8 MB only the first MB and the size count. Raises InputError where one of
    `others` is absent.
    """
    files = [f for i in images for f in (i.image, i.instances, i.points) if f]
    for path in others:
        if not path.is_file():
            raise InputError(f"{path}: no such file; run stage 1 first (code_detection/main.py)")
    contents = []
    for path in [*files, *others]:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(size if size <= 8 << 20 else 1 << 20)
        contents.append((path.name, size, hashlib.sha256(head).hexdigest()))
    return fingerprint(contents)


def _commit() -> str:
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _lock(folder: Path) -> IO:
    """Take a run folder for this process, until it ends; InputError where another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "w")
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{folder}: another process is working in this run folder; wait for it, or "
                    "give another --save-dir"
                ) from None
            time.sleep(0.2)
    return file


class Run:
    """A run folder whose steps happen once for the same options and inputs.

    Raises InputError where the folder holds a run with other options or inputs: nothing is
    overwritten that was not asked for. So a step that is marked as done is done, whatever options
    were added since (see old_runs.py). `options.restart` clears the folder first.
    """

    def __init__(self, folder: Path, options: CommonOptions, inputs: str):
        self.folder, self.options, self.path = folder, options, options_path(folder)
        self.facts = {
            "inputs": inputs,
            "commit": _commit(),
            "torch": torch.__version__,
            "machine": describe(choose_device(options)),
        }
        if distributed.is_main():
            self._open(inputs)
        distributed.wait_for_all()

    def _open(self, inputs: str) -> None:
        restart = self.options.restart and self.folder.exists()
        if restart and not self.path.is_file():
            raise InputError(f"{self.folder}: no run of this project, so --restart leaves it alone")
        self.lock = _lock(self.folder)
        if restart:
            shutil.rmtree(self.folder)
            self.lock = _lock(self.folder)
        # A run of which no step was ever finished, for wrong input, say, holds nothing to lose.
        if marker_paths(self.folder):
            self._check_same(inputs)
        rename_files(self.folder)
        self.save()
        for stale in self.folder.rglob(".*.tmp"):
            stale.unlink(missing_ok=True)

    def _check_same(self, inputs: str) -> None:
        if not self.path.is_file():
            raise InputError(
                f"{self.folder}: holds finished steps, but no {self.path.name} that says of what; "
                "give another --save-dir, or remove this one"
            )
        other = "give another --save-dir, or --restart to throw that run away"
        saved = read_json(self.path)
        refuse_removed(saved["options"], self.path)
        before, now = options_today(saved["options"]), as_json(self.options)
        for name in (n for n in now if n not in self.options.NOT_IN_RESULT):
            if before.get(name, now[name]) != now[name]:
                raise InputError(
                    f"{self.folder}: holds a run with {flag_of(name)} {before[name]}, not "
                    f"{now[name]}; {other}"
                )
        if saved.get("inputs", inputs) != inputs:
            raise InputError(
                f"{self.folder}: the input images or labels have changed since this run began; "
                f"{other}"
            )

    def save(self, **facts: object) -> None:
        """Write options.json; `facts` adds what became known on the way."""
        self.facts |= facts
        if not distributed.is_main():
            return
        before = read_json(self.path) if self.path.is_file() else {}
        write_json(self.path, {**before, **self.facts, "options": as_json(self.options)})

    def do(self, steps: Sequence[Step]) -> None:
        """Do the steps that are not done, one line for each."""
        seconds = work = 0.0  # of what this process has done, for the time left
        for number, step in enumerate(steps, 1):
            title = f"[{number}/{len(steps)}] {step.name}"
            before = self._seconds_of(step)
            if before is not None:
                if distributed.is_main():
                    print(f"{title}: done earlier ({_minutes(before)}), skipped")
            else:
                took, message = self._do(step)
                seconds, work = seconds + took, work + step.work
                left = sum(later.work for later in steps[number:])
                known = left and work  # nothing is known before the network has run
                ahead = f"; about {_minutes(seconds / work * left)} left" if known else ""
                if distributed.is_main():
                    print(f"{title}: {message} ({_minutes(took)}{ahead})", flush=True)
            if step.tidy and distributed.is_main():
                step.tidy()

    def _seconds_of(self, step: Step) -> float | None:
        """What a step took that is done, or None."""
        path, seconds = marker_path(self.folder, step.name), None
        if distributed.is_main() and path.is_file():
            seconds = read_json(path)["seconds"]
        return distributed.from_first(seconds)

    def _do(self, step: Step) -> tuple[float, str]:
        """Do a step; seconds, and what its line tells."""
        began = time.monotonic()
        result = step.action() if step.together or distributed.is_main() else None
        distributed.wait_for_all()
        if isinstance(result, dict):
            self.save(**result)
        seconds = time.monotonic() - began
        if distributed.is_main():
            write_json(marker_path(self.folder, step.name), {"seconds": round(seconds, 2)})
        return seconds, result if isinstance(result, str) else "done"


def remove_unfinished(save_dir: Path, training: Path) -> None:
    """Remove what the training in the folder `training` of a run would have gone on from."""
    last_path(training).unlink(missing_ok=True)
    shutil.rmtree(save_dir / CACHE, ignore_errors=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
