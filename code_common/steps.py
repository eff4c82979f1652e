"""The steps of a run: done ones are skipped, the others print one line with the time left."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import torch

from code_common.config import as_json, fingerprint, flag_of
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles, read_split
from code_common.files.images import image_shape
from code_common.files.layout import SPLIT
from code_common.files.locks import take_lock
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    CACHE,
    LABELS,
    SELF_TRAINING_LABELS,
    colours_path,
    detections_folder,
    label_errors_path,
    last_path,
    marker_path,
    marker_paths,
    options_path,
    pictures_folder,
    points_path,
    results_folder,
    round_folders,
    selection_path,
    val_points_path,
)
from code_common.files.writing import write_json
from code_common.launch import choose_device
from code_common.learning import distributed
from code_common.learning.hardware import describe
from code_common.learning.patches import windows
from code_common.old_runs import RENAMED_FILES, options_today, refuse_removed, rename_files
from code_common.options import CommonOptions

# The workers of a killed run notice after a few seconds, and hold its lock until then.
LOCK_PATIENCE_S = 10.0
PROJECT = Path(__file__).resolve().parents[1]
LOCK = ".lock"  # outlives --restart, so that two processes that wait for it never both get one
CLEARING = "clearing"  # what options.json says while --restart removes files
# The phases of stage 2, each of which has a folder.
_PHASES = ("labels", "crf", "self_training")
# Endings of the files that a run writes into its folders.
_WRITTEN = (".png", ".csv", ".json", ".geojson", ".tif", ".pt", ".npy", ".tmp")


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


class Inputs(NamedTuple):
    """What the input files of a run are recognised by."""

    contents: str  # changes with a name, and with anything in a file
    beginnings: str  # as older runs noted it: of a file over 8 MB the first MB and the size count


def files_fingerprint(images: Sequence[ImageFiles], others: Sequence[Path] = ()) -> Inputs:
    """Changes when the list of input files or a file's content does.

    Raises InputError where one of `others` is absent.
    """
    files = [f for i in images for f in (i.image, i.instances, i.points) if f]
    for path in others:
        if not path.is_file():
            raise InputError(f"{path}: no such file; run stage 1 first (code_detection/main.py)")
    contents, beginnings = [], []
    for path in [*files, *others]:
        size = path.stat().st_size
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read(1 << 20))
            beginning = content.copy()
            while part := file.read(1 << 20):
                content.update(part)
        contents.append((path.name, size, content.hexdigest()))
        known = content if size <= 8 << 20 else beginning
        beginnings.append((path.name, size, known.hexdigest()))
    return Inputs(fingerprint(contents), fingerprint(beginnings))


def _commit() -> str:
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _lock(folder: Path) -> IO:
    """Take a run folder for this process, until it ends; InputError where another one has it."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while (file := take_lock(folder / LOCK)) is None:
        if time.monotonic() > deadline:
            raise InputError(
                f"{folder}: another process is working in this run folder; wait for it, or "
                "give another --save-dir"
            )
        time.sleep(0.2)
    return file


def _remove_written(folder: Path) -> None:
    """Remove the files of a run from one of its folders, and the folder where nothing is left."""
    if folder.is_symlink():
        folder.unlink()
        return
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            _remove_written(path)
        elif path.suffix in _WRITTEN or path.name.startswith("events.out.tfevents."):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def remove_run(folder: Path) -> None:
    """Remove what a run of either stage wrote into its folder, also an older version.

    Other files stay, and so does the lock. options.json stays, too: it says that here is a run.
    """
    own_images = results_folder(folder, own_images=True)
    folders = [
        marker_path(folder, "NAME").parent,
        folder / CACHE,
        *(folder / name for name in (*LABELS, SELF_TRAINING_LABELS, *_PHASES)),
        *round_folders(folder),
        points_path(folder, "NAME").parent,
        val_points_path(folder, "NAME").parent,
        *(results_folder(folder), own_images, detections_folder(folder), pictures_folder(folder)),
    ]
    files = [
        selection_path(folder),
        colours_path(folder),
        label_errors_path(folder),
        label_errors_path(folder, "self_training"),
    ]
    older = [folder / name for name in RENAMED_FILES]
    for path in [*folders, *(path for path in older if path.is_dir())]:
        _remove_written(path)
    for path in [*files, *(path for path in older if path.suffix == ".json")]:
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


class Run:
    """A run folder whose steps happen once for the same options and inputs.

    Raises InputError where the folder holds a run with other options or inputs: nothing is
    overwritten that was not asked for. So a step that is marked as done is done, whatever options
    were added since (see old_runs.py). `options.restart` removes what the run wrote first; a
    restart that was stopped goes on.
    """

    def __init__(self, folder: Path, options: CommonOptions, inputs: Inputs):
        self.folder, self.options, self.path = folder, options, options_path(folder)
        self.facts = {
            "inputs": inputs.beginnings,
            "contents": inputs.contents,
            # Sets and groups, by the names of their images.
            "split": fingerprint(read_split(options.data_dir)),
            "commit": _commit(),
            "torch": torch.__version__,
            "machine": describe(choose_device(options)),
        }
        if distributed.is_main():
            self._open()
        distributed.wait_for_all()

    def _open(self) -> None:
        if self.options.restart and self.folder.exists() and not self._is_run():
            raise InputError(f"{self.folder}: no run of this project, so --restart leaves it alone")
        self.lock = _lock(self.folder)
        begun = self.kept().get("restarting") if self._is_run() else None
        if self.path.is_file() and (self.options.restart or begun == CLEARING):
            self._restart(begun)
        # A run of which no step was ever finished, for wrong input, say, holds nothing to lose.
        if marker_paths(self.folder):
            self._check_same()
        rename_files(self.folder)
        self.save()
        for stale in self.folder.rglob(".*.tmp"):
            stale.unlink(missing_ok=True)

    def _is_run(self) -> bool:
        """Whether the folder holds a run, or nothing but what an interrupted start leaves."""
        if self.path.is_file():
            saved = read_json(self.path)
            return isinstance(saved, dict) and isinstance(saved.get("options"), dict)
        return self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= {LOCK}

    def _restart(self, begun: object) -> None:
        """Remove what the run wrote, but for a restart with these options that was stopped.

        begun: what options.json says of a restart that is not finished.
        """
        if begun and begun != CLEARING:
            try:
                self._check_same()
                print(f"{self.folder}: goes on with the restart that was stopped")
                return
            except InputError:
                pass  # a restart with other options
        write_json(self.path, {**self.kept(), "restarting": CLEARING})
        remove_run(self.folder)
        write_json(self.path, {"restarting": True, "options": as_json(self.options)})

    def _check_same(self) -> None:
        if not (self.path.is_file() and self._is_run()):
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
        # Older runs do not tell the whole content, nor the sets.
        known = "contents" if "contents" in saved else "inputs"
        if saved.get(known, self.facts[known]) != self.facts[known]:
            raise InputError(
                f"{self.folder}: the input images or labels have changed since this run began; "
                f"{other}"
            )
        if saved.get("split", self.facts["split"]) != self.facts["split"]:
            raise InputError(
                f"{self.folder}: the sets or groups of {SPLIT} have changed since this run began; "
                f"{other}"
            )

    def kept(self) -> dict:
        """What options.json holds."""
        return read_json(self.path) if self.path.is_file() else {}

    def save(self, **facts: object) -> None:
        """Write options.json; `facts` adds what became known on the way."""
        self.facts |= facts
        if not distributed.is_main():
            return
        write_json(self.path, {**self.kept(), **self.facts, "options": as_json(self.options)})

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
        if distributed.is_main() and self.kept().get("restarting"):
            self.save(restarting=False)

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
