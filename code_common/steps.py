"""The steps of a run: done ones are skipped, the others print one line with the time left."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import torch

from code_common.config import as_json, fingerprint
from code_common.errors import InputError
from code_common.files.data_set import Sample
from code_common.files.old_runs import options_today
from code_common.files.reading import image_shape, read_json
from code_common.files.writing import write_json
from code_common.learning import distributed
from code_common.learning.hardware import describe
from code_common.learning.patches import windows

try:
    import fcntl
except ImportError:  # Windows, where nothing but the user keeps two processes apart
    fcntl = None

# The workers of a killed run notice after a few seconds, and hold its lock until then.
LOCK_PATIENCE_S = 10.0
PROJECT = Path(__file__).resolve().parents[1]


def files_fingerprint(samples: Sequence[Sample], others: Sequence[Path] = ()) -> str:
    """Changes when the list of input files or a file's content does.

    Of a file over 8 MB only the first MB and the size count. Raises InputError where one of
    `others` is absent.
    """
    files = [f for s in samples for f in (s.image, s.instances, s.points) if f]
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
    overwritten that was not asked for. So a step that was done is done, whatever options this
    version has that the one before had not (see old_runs.py). `options.restart` clears the folder
    first. `plan` names the steps in order, each with its work (0 for those without a network), from
    which the time left is told.
    """

    def __init__(self, folder: Path, options: object, inputs: str, plan: dict[str, float]):
        self.folder, self.plan = folder, plan
        self.seconds, self.work = 0.0, 0.0  # what this process has done, for the time left
        self.options, self.path = options, folder / "options.json"
        settings = {k: v for k, v in as_json(options).items() if k not in options.NOT_IN_RESULT}
        self.extra = {
            "inputs": inputs,
            "commit": _commit(),
            "torch": torch.__version__,
            "machine": describe(options.choose_device()),
        }
        if distributed.rank() == 0:
            self._open(folder, self.path, settings, inputs)
        distributed.wait_for_all()

    def _open(self, folder: Path, path: Path, settings: dict, inputs: str) -> None:
        restart = self.options.restart and folder.exists()
        if restart and not path.is_file():
            raise InputError(f"{folder}: no run of this project, so --restart leaves it alone")
        self.lock = _lock(folder)
        if restart:
            shutil.rmtree(folder)
            self.lock = _lock(folder)
        # A run of which no step was ever finished, for wrong input, say, holds nothing to lose.
        if any((folder / ".done").glob("*.json")):
            if not path.is_file():
                raise InputError(
                    f"{folder}: holds finished steps, but no {path.name} that says of what; give "
                    "another --save-dir, or remove this one"
                )
            before = read_json(path)
            saved = options_today(before["options"], path)
            for name, value in settings.items():
                old = saved.get(name, value)
                if old != value:
                    flag = "--" + name.replace("_", "-")
                    raise InputError(
                        f"{folder}: holds a run with {flag} {old}, not {value}; give another "
                        "--save-dir, or --restart to throw that run away"
                    )
            if before.get("inputs", inputs) != inputs:
                raise InputError(
                    f"{folder}: the input images or labels have changed since this run began; "
                    "give another --save-dir, or --restart to throw that run away"
                )
        self.save()
        for stale in folder.rglob(".*.tmp"):
            stale.unlink(missing_ok=True)

    def save(self, **extra: object) -> None:
        """Write options.json; `extra` adds what became known on the way."""
        self.extra |= extra
        if distributed.rank():
            return
        before = read_json(self.path) if self.path.is_file() else {}
        write_json(self.path, {**before, **self.extra, "options": as_json(self.options)})

    def step(self, name: str, action: Callable[[], str | None], together: bool = False) -> None:
        """Do a step, or say that it is done. `action` returns what its line should tell.

        Of several processes the first does it, or all of them `together`.
        """
        names = list(self.plan)
        number = f"[{names.index(name) + 1}/{len(names)}]"
        marker, first = self.folder / ".done" / f"{name}.json", distributed.rank() == 0
        done = distributed.from_first(read_json(marker) if first and marker.is_file() else None)
        if done:
            if first:
                print(f"{number} {name}: done earlier ({_minutes(done['seconds'])}), skipped")
            return
        began = time.monotonic()
        told = action() if first or together else None
        distributed.wait_for_all()
        if not first:
            return
        seconds = time.monotonic() - began
        write_json(marker, {"seconds": round(seconds, 2)})
        self.seconds, self.work = self.seconds + seconds, self.work + self.plan[name]
        left = sum(self.plan[n] for n in names[names.index(name) + 1 :])
        known = left and self.work  # nothing is known before the network has run
        ahead = f"; about {_minutes(self.seconds / self.work * left)} left" if known else ""
        print(f"{number} {name}: {told or 'done'} ({_minutes(seconds)}{ahead})", flush=True)


def training_work(samples: Sequence[Sample], patch: int, crop: int, epochs: int) -> float:
    """Work of training in megapixels through the network, three passes a step."""
    patches = sum(len(windows(image_shape(s.image), patch)) for s in samples)
    return 3e-6 * epochs * patches * crop**2


def inference_work(samples: Sequence[Sample], tile: int, overlap: int, views: int = 1) -> float:
    """Work of inference in megapixels through the network."""
    tiles = sum(len(windows(image_shape(s.image), tile, overlap)) for s in samples)
    return 1e-6 * tiles * tile**2 * views


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
