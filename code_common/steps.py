"""The steps of a run: done ones are skipped, the others print one line with the time left."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import torch

from code_common.config import as_json, fingerprint, flag_of, shown_fields
from code_common.errors import InputError
from code_common.files.contents import (
    Inputs,
    content_hash,
    contents_of,
    files_fingerprint,
    read_marker,
    refuse_unfinished,
    stamp,
)
from code_common.files.data_set import ImageFiles, load_split, read_split
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
    detections_path,
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
from code_common.learning.precision import choose_precision, precision_name
from code_common.old_runs import (
    RENAMED_FILES,
    checkpoint_path,
    options_today,
    refuse_removed,
    rename_files,
)
from code_common.options import CommonOptions

# The workers of a killed run notice after a few seconds, and hold its lock until then.
LOCK_PATIENCE_S = 10.0
PROJECT = Path(__file__).resolve().parents[1]
CODE_SUFFIXES = (".py", ".h", ".cpp", ".cu")
LOCK = ".lock"  # outlives --restart, so that two processes that wait for it never both get one
OTHER = "give another --root-save-dir, or --restart to throw that run away"
T = TypeVar("T")
CLEARING = "clearing"  # what options.json says while --restart removes files
# The phases of stage 2, each of which has a folder.
_PHASES = ("labels", "crf", "self_training")
# What a run writes, of any version: files of these names, and those that the markers note. In a
# folder of which no marker tells, the endings tell, but for folders where all names are of these.
_WRITTEN = re.compile(
    r".+_(points\.csv|prob\.png|overlay\.png|instances\.tif|nuclei\.geojson)|metrics\.json|"
    r"per_image\.csv|(best|last)\.pt|log\.csv|figures\.json|areas\.json|.+\.npy|\..+\.tmp|"
    r"events\.out\.tfevents\..*"
)
_RESULTS = ("test", "test_own", "detections", "train")
_ENDINGS = (".png", ".csv", ".json")


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


def saved_run(path: Path) -> dict:
    """What options.json of a run holds. Raises InputError where it is not of this project."""
    return read_json(path, {"options": dict})


def inputs_of(options: CommonOptions) -> Inputs:
    """What the input files of a run are recognised by: those of the data set and, in stage 2, the
    detections and annotated points of stage 1. Raises InputError where one is not there.
    """
    split, stage_1 = load_split(options.data_dir), options.detection_dir()
    images = [files for part in ("train", "val", "test") for files in split[part]]
    if stage_1 is None:
        return files_fingerprint(images)
    detections = [detections_path(stage_1, files.name) for files in images]
    annotated = [points_path(stage_1, files.name) for files in split["train"]]
    return files_fingerprint(images, detections, annotated)


def facts_of(inputs: Inputs, data_dir: Path) -> dict[str, object]:
    """What options.json tells of the data set and the detections that a run is made of."""
    return {
        "inputs": inputs.beginnings,
        "contents": inputs.contents,
        "images": inputs.images,
        "detections": inputs.detections,
        "annotated": inputs.annotated,
        "detected": list(inputs.detected),
        # Sets and groups, by the names of their images.
        "split": fingerprint(read_split(data_dir)),
    }


def refuse_other_files(folder: Path, facts: dict[str, object], remedy: str = OTHER) -> None:
    """Raise InputError where a run folder holds a run that is made of other files.

    facts: what options.json would tell of the files that are there now. Older runs do not tell all.
    """
    saved = saved_run(options_path(folder))
    first = saved["options"]
    known = {
        # Older runs do not tell the detections alone, the whole content, nor what stands below.
        "detections": "the detections of stage 1 have",
        "contents" if "contents" in saved else "inputs": "the input images or labels have",
        "annotated": "the annotated points of stage 1 have",
        "split": f"the sets or groups of {SPLIT} have",
        "first_weights": f"the first weights, {first.get('pretrained')}, have",
        "start_from": f"the first weights, {first.get('start_from')}, have",
    }
    for name, what in known.items():
        if saved.get(name, facts.get(name)) != facts.get(name, saved.get(name)):
            raise InputError(f"{folder}: {what} changed since this run began; {remedy}")


def refuse_other_options(folder: Path, options: CommonOptions, remedy: str = OTHER) -> None:
    """Raise InputError where a run folder holds finished steps of a run with other options.

    Compared are the options of the script.
    """
    path = options_path(folder)
    if not path.is_file():
        raise InputError(
            f"{folder}: holds finished steps, but no {path.name} that says of what; "
            "give another --save-dir, or remove this one"
        )
    saved = saved_run(path)["options"]
    refuse_removed(saved, path)
    before, now = options_today(saved), as_json(options)
    for name in (field.name for field in shown_fields(type(options))):
        if name in options.NOT_IN_RESULT:
            continue
        if before.get(name, now[name]) != now[name]:
            raise InputError(
                f"{folder}: holds a run with {flag_of(name)} {before[name]}, not {now[name]}; "
                f"{remedy}"
            )


def refuse_other_run(options: CommonOptions) -> None:
    """Raise InputError where a script of one step, in the folder of a run of main.py, has other
    options or files than that run.
    """
    folder = options.save_dir
    if not marker_paths(folder) or not options_path(folder).is_file():
        return
    refuse_other_options(folder, options, "give those of the run, with its --profile")
    if "contents" in saved_run(options_path(folder)):
        facts = facts_of(inputs_of(options), options.data_dir)
        refuse_other_files(folder, facts, "put them back, or give another --save-dir")


def refuse_other_checkpoint(folder: Path, checkpoint: Path) -> None:
    """Raise InputError where a finished run of main.py has the results of another checkpoint, its
    own, which would be lost.
    """
    path = selection_path(folder)
    if marker_paths(folder) and path.is_file():
        own = checkpoint_path(folder, read_json(path, {"checkpoint": str})["checkpoint"])
        if own.resolve() != checkpoint.resolve():
            raise InputError(
                f"{folder}: holds the results of {own}, the checkpoint that this run chose; give "
                f"another --save-dir for those of {checkpoint}"
            )


def refuse_other_data(stage_1: Path, inputs: Inputs, options: CommonOptions) -> None:
    """Raise InputError where stage 1 is of other images, labels or sets, or is not finished.

    A line says so where it is of another share of the points.
    """
    refuse_unfinished(stage_1)
    path = options_path(stage_1)
    saved = saved_run(path) if path.is_file() else {"options": {}}
    now = {"contents": inputs.images, "split": fingerprint(read_split(options.data_dir))}
    if any(saved.get(name, value) != value for name, value in now.items()):
        raise InputError(
            f"{stage_1}: a run on other images, labels or sets than those of {options.data_dir}; "
            "run stage 1 on these first (code_detection/main.py)"
        )
    ratio = saved["options"].get("ratio", options.ratio)
    if ratio != options.ratio:
        print(f"{stage_1}: made with --ratio {ratio}, not {options.ratio}")


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


def _commit() -> str:
    """The version of the code: its commit, and a hash of the code where that does not tell it."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        commit = done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    is_whole = commit != "unknown" and not commit.endswith("-dirty")
    return commit if is_whole else f"{commit}-{_code_hash(PROJECT)}"


def _code_hash(project: Path) -> str:
    """Short hash of the code that makes the results."""
    files = [path for path in project.glob("code_*/**/*") if path.suffix in CODE_SUFFIXES]
    return fingerprint(contents_of(project, [path.relative_to(project) for path in files]))[:8]


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


def _remove_written(folder: Path, noted: Collection[Path]) -> None:
    """Remove the files of a run from one of its folders, and the folder where nothing is left.

    noted: the files that the steps of the run noted.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    is_told = folder.name in _RESULTS or any(path.parent == folder for path in noted)
    endings = () if is_told else _ENDINGS
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            _remove_written(path, noted)
        elif path in noted or path.suffix in endings or _WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def noted_files(folder: Path) -> set[Path]:
    """The files that the steps of a run noted as theirs; a damaged marker tells of none."""
    noted: set[Path] = set()
    for path in marker_paths(folder):
        with contextlib.suppress(InputError):
            noted |= {folder / name for name in read_marker(folder, path.stem).get("files", {})}
    return noted


def remove_run(folder: Path) -> None:
    """Remove what a run of either stage wrote into its folder, also an older version.

    Other files stay, and so does the lock. options.json stays, too: it says that here is a run.
    """
    noted = noted_files(folder)
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
        _remove_written(path, noted)
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
        self.facts = facts_of(inputs, options.data_dir)
        first = {"first_weights": options.pretrained, "start_from": options.start_from or ""}
        # A file that is gone is no change: its weights are in the run already.
        hashes = {name: content_hash(Path(file)) for name, file in first.items()}
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
        facts = {"commit": self._added("commit", "version of the code", _commit())}
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


def remove_unfinished(save_dir: Path, training: Path) -> None:
    """Remove what the training in the folder `training` of a run would have gone on from."""
    last_path(training).unlink(missing_ok=True)
    shutil.rmtree(save_dir / CACHE, ignore_errors=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
