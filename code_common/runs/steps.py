"""The steps of a run: done ones are skipped, the others print one line with the time left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import torch

from code_common.config import as_json
from code_common.errors import InputError
from code_common.files.contents import Inputs, content_hash, contents_of, read_marker, stamp
from code_common.files.locks import take_lock
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_path, marker_paths, options_path
from code_common.files.writing import write_json
from code_common.launch import choose_device
from code_common.learning import distributed
from code_common.learning.hardware import describe
from code_common.learning.precision import choose_precision, precision_name
from code_common.old_runs import rename_files
from code_common.options import CommonOptions
from code_common.runs.code_version import code_version
from code_common.runs.removal import remove_run
from code_common.runs.same_run import (
    facts_of,
    inputs_of,
    refuse_other_files,
    refuse_other_options,
    refuse_other_run,
    saved_run,
)

# The workers of a killed run notice after a few seconds, and hold its lock until then.
LOCK_PATIENCE_S = 10.0
LOCK = ".lock"  # outlives --restart, so that two processes that wait for it never both get one
CLEARING = "clearing"  # what options.json says while --restart removes files
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """A part of a run that is done once."""

    name: str
    # () -> what its line tells, or facts by name that options.json shall keep
    action: Callable[[], str | dict | None]
    work: float = 0.0  # megapixels through the network: what it is worth in time
    together: bool = False  # of several processes all do it, else the first
    tidy: Callable[[], None] | None = None  # removes what is not needed once the step is done
    # Its results by their places in the run folder. Not all need be there; no other file counts.
    writes: Sequence[Path] = ()


def do_alone(
    action: Callable[[CommonOptions], T], options: CommonOptions, trains: bool = False
) -> T:
    """Do what a script of one step does, with the run folder for itself.

    trains: whether it trains, which takes long and may be stopped. Raises InputError where main.py
    is working there, or has made a run: one with other options, or any, if the script trains.
    """
    refuse_other_run(options)
    if trains and marker_paths(options.save_dir):
        raise InputError(
            f"{options.save_dir}: holds a run of main.py, whose networks this would replace; go on "
            "with main.py, or give another --save-dir"
        )
    if distributed.is_main():
        lock = _lock(options.save_dir)  # until it is closed, or the process ends
    result = action(options)
    if distributed.is_main():
        lock.close()
    return result


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


class Run:
    """A run folder whose steps happen once for the same options and inputs.

    Raises InputError where the folder holds a run with other options or inputs: nothing is
    overwritten that was not asked for. So a step that is marked as done is done, whatever options
    were added since (see old_runs.py). `options.restart` removes what the run wrote first; a
    restart that was stopped goes on.
    """

    def __init__(self, folder: Path, options: CommonOptions, inputs: Inputs):
        self.folder, self.options, self.path = folder, options, options_path(folder)
        self.facts = facts_of(inputs, options.data_dir)
        first = {"first_weights": options.pretrained, "start_from": options.start_from}
        # A file that is gone is no change: its weights are in the run already.
        hashes = {name: content_hash(Path(file)) for name, file in first.items() if file}
        self.facts |= {name: content for name, content in hashes.items() if content}
        self.stamps = {path: stamp(path) for path in inputs.files}
        self.machine = describe(choose_device(options))
        self.written: dict[str, dict[str, str]] = {}  # step that was done -> its files
        if distributed.is_main():
            self._open()
        distributed.wait_for_all()

    def _open(self) -> None:
        if self.options.restart and self.folder.exists() and not self._is_run():
            raise InputError(f"{self.folder}: no run of this project, so --restart leaves it alone")
        self.lock = _lock(self.folder)
        self._refuse_other_stage()
        begun = self.kept().get("restarting")
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

    def _refuse_other_stage(self) -> None:
        """Raise InputError where the folder holds a run of the other stage, also for a restart."""
        saved = self.kept().get("options") or {}
        stage = "detection" if "rounds" in saved else "segmentation"
        if saved and stage != self.options.STAGE:
            raise InputError(f"{self.folder}: holds a run of {stage}; give another --save-dir")

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
        refuse_other_options(self.folder, self.options)
        refuse_other_files(self.folder, self.facts)

    def kept(self) -> dict:
        """What options.json holds."""
        return saved_run(self.path) if self.path.is_file() else {}

    def save(self, **facts: object) -> None:
        """Write options.json; `facts` adds what became known on the way."""
        self.facts |= facts
        if not distributed.is_main():
            return
        write_json(self.path, {**self.kept(), **self.facts, "options": as_json(self.options)})

    def do(self, steps: Sequence[Step]) -> None:
        """Do the steps that are not done, one line for each.

        A step is done again where files that it wrote are gone. Where it then writes others than
        before, so are the steps after it. Raises InputError where such a file was changed.
        """
        seconds = work = 0.0  # of what this process has done, for the time left
        done = distributed.from_first(self._done(steps) if distributed.is_main() else None)
        for number, step in enumerate(steps, 1):
            title = f"[{number}/{len(steps)}] {step.name}"
            if step.name in done:
                if distributed.is_main():
                    print(f"{title}: done earlier ({_minutes(done[step.name])}), skipped")
            else:
                took, same, message = self._do(step, steps[number:])
                done = done if same else {}
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

    def _done(self, steps: Sequence[Step]) -> dict[str, float]:
        """The steps that are done, and the seconds that they took."""
        done = {}
        for step in steps:
            seconds, files = self._noted(step)
            self.written[step.name] = files
            if seconds is None:
                continue
            now = {name: content_hash(self.folder / name) for name in files}
            gone = [name for name in files if files[name] and not now[name]]
            changed = [name for name in files if now[name] and files[name] != now[name]]
            if changed:
                raise InputError(
                    f"{self.folder / changed[0]}: changed{_others(changed)} since '{step.name}' "
                    "wrote it; remove it to have it made again, or put it back"
                )
            if gone:
                print(f"{self.folder / gone[0]}: gone{_others(gone)}; '{step.name}' is done again")
            else:
                done[step.name] = seconds
        return done

    def _noted(self, step: Step) -> tuple[float | None, dict[str, str]]:
        """Of a step that was done: its seconds and files. None where it was not done to its end."""
        path = marker_path(self.folder, step.name)
        if not path.is_file():
            return None, {}
        try:
            marker = read_marker(self.folder, step.name)
        except InputError as error:
            print(f"{error}; '{step.name}' is done again")
            return None, {}
        return marker.get("seconds"), marker.get("files", {})

    def _do(self, step: Step, later: Sequence[Step]) -> tuple[float, bool, str]:
        """Do a step: seconds, whether it wrote the same files as before, what its line tells.

        If they are not the same, the steps after it count as not done.
        """
        if distributed.is_main():
            self._note_code(step)
            before = self.written.get(step.name)
            if before or any(marker_path(self.folder, s.name).is_file() for s in later):
                self._mark(step, {"files": before or {}})  # from now on they may change
        began = time.monotonic()
        result = step.action() if step.together or distributed.is_main() else None
        distributed.wait_for_all()
        if isinstance(result, dict):
            self.save(**result)
        seconds, same = time.monotonic() - began, False
        if distributed.is_main():
            self._refuse_files_that_changed(step)
            files = contents_of(self.folder, step.writes)
            same = self.written.get(step.name) == files
            for stale in () if same else later:
                if marker_path(self.folder, stale.name).is_file():
                    self._mark(stale, {"files": self.written.get(stale.name, {})})
            self._mark(step, {"seconds": round(seconds, 2), "files": files})
        return seconds, distributed.from_first(same), result if isinstance(result, str) else "done"

    def _refuse_files_that_changed(self, step: Step) -> None:
        """Raise InputError where the input files are others than at the start of a step that they
        may have gone into.
        """
        now = {path: stamp(path) if path.is_file() else [] for path in self.stamps}
        if now == self.stamps:
            return
        refuse_other_files(
            self.folder,
            facts_of(inputs_of(self.options), self.options.data_dir),
            f"'{step.name}' was at work meanwhile and is done again once they are put back",
        )
        self.stamps = now

    def _mark(self, step: Step, noted: dict) -> None:
        """Note of a step its seconds, unless it is to be done again, and its files."""
        write_json(marker_path(self.folder, step.name), noted)

    def _note_code(self, step: Step) -> None:
        """Note code, machine and number format of a step; those before it may have had others."""
        facts = {"commit": self._added("commit", "version of the code", code_version())}
        if step.work:  # through the network
            precision = choose_precision(self.options.precision, choose_device(self.options))
            now = precision_name(precision)
            facts["precision_used"] = self._added("precision_used", "number format", now)
        self.save(**facts, torch=torch.__version__, machine=self.machine)

    def _added(self, name: str, what: str, now: str) -> str:
        """All that the steps of this run had of something, with what the next one has.

        A line says so where that is new: to this run or, before its first such step, to stage 1.
        """
        own = str(self.kept().get(name, "")) if marker_paths(self.folder) else ""
        stage_1 = self.options.detection_dir()
        if own and now not in own.split(", "):
            print(f"{self.folder}: goes on with another {what}, {now}, not {own}")
            return f"{own}, {now}"
        if not own and stage_1 and options_path(stage_1).is_file():
            before = str(saved_run(options_path(stage_1)).get(name, now))
            if now not in before.split(", "):
                print(f"{stage_1}: made with another {what}, {before}, not {now}")
        return own or now


def _others(names: Sequence[str]) -> str:
    return f", with {len(names) - 1} more files," if len(names) > 1 else ""


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
