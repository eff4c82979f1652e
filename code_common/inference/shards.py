"""Many images over many processes: which process does an image, which images are done."""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from code_common.errors import InputError
from code_common.files.contents import content_hash, stamp
from code_common.files.locks import remove_lock, take_lock
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_path
from code_common.files.writing import write_json
from code_common.inference.side_by_side import side_by_side
from code_common.learning import distributed

ALL = "0/1"  # the shard of a process that does every image
WAIT_S = 0.2  # between two looks at an image that another process is doing
MOST_LINES = 20  # of errors that are listed one by one
NOT_OURS = "no call of this program wrote it, and its results would replace it; give another --out"
# What stands in the way of one image, and not of all.
_OF_ONE_IMAGE = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
# name of an image -> the files written for it, and a JSON value to keep of it
Work = Callable[[str], tuple[Iterable[Path], object]]


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(I, N) of 'I/N': this process does every N-th image from I, which is 0 to N - 1.

    Where `text` is empty, a SLURM job array says it (SLURM_ARRAY_TASK_ID, _MIN, _MAX, _STEP,
    _COUNT); else (0, 1). Processes that work as one share the shard. Raises InputError, also for an
    array with gaps: some images would be nobody's.
    """
    index, count = 0, 1
    if text:
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        index, count = (int(n) for n in found.groups()) if found else (0, 0)
        if not index < count:
            raise InputError(f"--shard must be I/N with I from 0 to N - 1, not {text}")
    elif environment.get("SLURM_ARRAY_TASK_ID"):
        index, count = _job_of_array(environment)
    return index * distributed.size() + distributed.rank(), count * distributed.size()


def _job_of_array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of this job of a SLURM array, from 0, and the number of jobs."""
    numbers = {"MIN": 0, "STEP": 1}
    for name in ("ID", "MIN", "MAX", "STEP", "COUNT"):
        value = environment.get(f"SLURM_ARRAY_TASK_{name}")
        if value:
            if not re.fullmatch(r"[0-9]{1,9}", value):
                raise InputError(f"SLURM_ARRAY_TASK_{name} is no number: {value}; give --shard I/N")
            numbers[name] = int(value)
    step = max(1, numbers["STEP"])
    index, rest = divmod(numbers["ID"] - numbers["MIN"], step)
    count = numbers.get("COUNT")
    if count is None and "MAX" in numbers:
        count = (numbers["MAX"] - numbers["MIN"]) // step + 1
    if count is None:
        raise InputError("SLURM_ARRAY_TASK_COUNT is not set; give --shard I/N")
    last = (numbers.get("MAX", numbers["ID"]) - numbers["MIN"]) // step
    whole = last == count - 1 if "MAX" in numbers else last < count
    if rest or not 0 <= index < count or not whole:
        raise InputError(
            f"a SLURM job array with gaps ({count} jobs, this one is number {numbers['ID']} from "
            f"{numbers['MIN']}); give --array=0-{count - 1}, or --shard I/N for each job"
        )
    return index, count


def told_of_array(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Which shard of `parse_shard` a SLURM job array chose, where `text` is empty; else ''."""
    if text or not environment.get("SLURM_ARRAY_TASK_ID"):
        return ""
    index, count = _job_of_array(environment)
    return f" (this is shard {index}/{count}, of a SLURM job array; --shard 0/1 does all images)"


class DoneFiles:
    """What is done in a folder: one small file for each image, written last.

    An image counts as done for the same `key` (weights and settings), and for input and output
    files of the same content.
    """

    def __init__(self, folder: Path, key: str, form: object = None):
        """form: that of the values, as `read_json` takes it."""
        self.folder, self.key, self.form = folder, key, form

    def results(self) -> dict[str, list[str]]:
        """The files of each image that are there, whatever call wrote them."""
        names = [path.stem for path in marker_path(self.folder, "NAME").parent.glob("*.json")]
        there = {n: [f for f in self._files(n) if (self.folder / f).is_file()] for n in names}
        return {name: files for name, files in there.items() if files}

    def lock_path(self, name: str) -> Path:
        """The lock of the process that does an image."""
        return marker_path(self.folder, name).with_suffix(".lock")

    def _note(self, name: str, value: object = None) -> dict | None:
        """What is noted of an image, with a `value` of that form; None where it was never begun."""
        form = {"key": str, "inputs": [[None]], "files": {str: [None]}, "value": value}
        try:
            return read_json(marker_path(self.folder, name), form)
        except InputError:  # not there, or damaged
            return None

    def _files(self, name: str) -> dict[str, list]:
        """The files that are noted of an image: what each is recognised by."""
        return (self._note(name) or {"files": {}})["files"]

    def get(self, name: str, inputs: Sequence[Path | None]) -> object:
        """What `put` was given for an image, or None where it is not done."""
        note = self._note(name, self.form)
        if note is None or note["key"] != self.key or not note["files"]:
            return None
        outputs = [self.folder / file for file in note["files"]]
        same = all(path.is_file() for path in outputs)
        same = same and are_as_noted(outputs, list(note["files"].values()))
        return note["value"] if same and are_as_noted(inputs, note["inputs"]) else None

    def refuse_edited(self, name: str) -> None:
        """Raise InputError where an output file was changed by hand: it would be written over.

        One that was emptied holds nothing to lose.
        """
        for file, known in self._files(name).items():
            path = self.folder / file
            there = known and path.is_file() and path.stat().st_size
            if there and not are_as_noted([path], [known]):
                raise InputError(
                    f"{path}: changed since it was written; remove it to have it made again"
                )

    def is_known(self, name: str) -> bool:
        """Whether an image was ever done, be it in another way."""
        return bool((self._note(name) or {"inputs": []})["inputs"])

    def begin(self, name: str, endings: Sequence[str]) -> Callable[[], None]:
        """Note of an image that it is being done: any of its files may be another one now.

        endings: those of its results behind its name, so that a killed call's are known as such.
        Returns what takes the note back if nothing was written. Raises InputError where a file
        with such an ending is there that no call has written.
        """
        path, note = marker_path(self.folder, name), self._note(name)
        is_damaged = note is None and path.is_file()  # it does not tell which files are ours
        before, note = note, note or {"inputs": [], "files": {}, "value": None}
        files = dict.fromkeys(note["files"], [])
        for file in (f"{name}_{ending}" for ending in endings):
            if not is_damaged and file not in files and (self.folder / file).exists():
                raise InputError(f"{self.folder / file}: {NOT_OURS}")
            files[file] = []
        write_json(path, {**note, "key": "", "files": files})

        def take_back() -> None:
            places = [self.folder / file for file in files]
            if are_as_noted(places, [note["files"].get(file, []) for file in files]):
                if before:
                    write_json(path, before)
                elif not is_damaged:
                    path.unlink()

        return take_back

    def put(self, name: str, inputs: list[list], files: Iterable[Path], value: object) -> None:
        """Record that an image is done; `value` is any JSON value but null.

        Files of an earlier call that are not among `files` are removed. inputs: `noted` before the
        work, so that an image that changed meanwhile is done again.
        """
        paths = list(files)
        names = [os.path.relpath(path, self.folder) for path in paths]
        listed = dict(zip(names, noted(paths), strict=True))
        for stale in self._files(name).keys() - listed.keys():  # of a call with other options
            (self.folder / stale).unlink(missing_ok=True)
        done = {"key": self.key, "inputs": inputs, "files": listed, "value": value}
        write_json(marker_path(self.folder, name), done)


def noted(paths: Sequence[Path | None]) -> list[list]:
    """What files are recognised by: stamp and content of each; [] where one is absent."""
    return [_noted(path) for path in paths]


def _noted(path: Path | None) -> list:
    if path and path.is_dir():  # masks of single nuclei
        return [[name, *_noted(path / name)] for name in sorted(os.listdir(path))]
    return [stamp(path), content_hash(path)] if path and path.is_file() else []


def are_as_noted(paths: Sequence[Path | None], notes: list[list]) -> bool:
    """Whether files hold what they held at `noted`.

    A file is read only where its stamp has changed, as it does with a hard link or `chmod`, too.
    """

    def is_same(path: Path | None, note: list) -> bool:
        if not (path and path.is_file()):
            return _noted(path) == note
        return stamp(path) in note or content_hash(path) in note

    return len(paths) == len(notes) and all(map(is_same, paths, notes))


def _do_image(
    done: DoneFiles,
    name: str,
    inputs: Sequence[Path | None],
    work: Work,
    endings: Sequence[str],
) -> bool:
    """Do an image where it is not done; False where another process is doing it."""
    lock_path = done.lock_path(name)
    lock = take_lock(lock_path)
    if lock is None:
        return False
    try:
        if done.get(name, inputs) is None:  # else it was done meanwhile
            done.refuse_edited(name)
            take_back = done.begin(name, endings)  # what is written from now on was not edited
            try:
                before = noted(inputs)
                files, value = work(name)
            except BaseException:  # also Ctrl-C
                take_back()
                raise
            done.put(name, before, files, value)
    finally:
        remove_lock(lock_path, lock)
    return True


def process_shard(
    done: DoneFiles,
    inputs: Mapping[str, Sequence[Path | None]],
    work: Work,
    shard: str,
    title: str,
    processes: int = 1,
    endings: Sequence[str] = (),
) -> dict[str, object]:
    """Do the images of a shard that are not done; returns the values of all that are, by name.

    inputs: name -> input files of an image. Up to `processes` images are done at a time, each in a
    process of its own: what `work` changes in memory is lost. An image that another call is doing
    is left to it, and waited for at the end. An image that cannot be read does not stop the others:
    the InputError at the end has a line for each. endings: of its results, see `DoneFiles.begin`.
    """
    names = sorted(inputs)
    index, count = parse_shard(shard)
    quiet = None if distributed.is_main() else True

    def attempt(name: str) -> tuple[bool, str]:
        """Whether an image is done or cannot be, and why it cannot."""
        try:
            return _do_image(done, name, inputs[name], work, endings), ""
        except InputError as error:
            return True, " ".join(str(error).splitlines())
        except OSError as error:
            of_its_inputs = error.filename in map(str, inputs[name])
            if error.errno not in _OF_ONE_IMAGE and not of_its_inputs:
                raise
            if error.errno == errno.ENAMETOOLONG:
                return True, f"{inputs[name][0]}: the name is too long for those of its results"
            return True, f"{error.filename}: {error.strerror.lower()}"

    marker_path(done.folder, "NAME").parent.mkdir(parents=True, exist_ok=True)  # or an OSError
    shard_names = names[index::count]
    undone = {name for name in shard_names if done.get(name, inputs[name]) is None}
    again = sum(map(done.is_known, undone))
    if again:
        print(
            f"{again} images of an earlier call are done again: the model, an option, the image or "
            "its results have changed",
            file=sys.stderr,
        )
    # The lock of an image that is done is what a killed process left.
    todo = [name for name in shard_names if name in undone or done.lock_path(name).exists()]
    ends = side_by_side(todo, attempt, processes)
    tried = dict(tqdm(ends, title, len(todo), leave=False, disable=quiet))
    waiting = [name for name, (ended, _) in tried.items() if not ended]
    if waiting:
        print(
            f"{len(waiting)} images are being done by another process in {done.folder}; waiting "
            "for it",
            file=sys.stderr,
        )
    for name in waiting:
        while not (end := attempt(name))[0]:
            time.sleep(WAIT_S)
        tried[name] = end
    failed = {name: why for name, (_, why) in tried.items() if why}
    if failed:
        lines = list(dict.fromkeys(failed[name] for name in sorted(failed)))
        more = len(lines) - MOST_LINES
        lines = [*lines[:MOST_LINES], *([f"{more} more images failed"] if more > 0 else [])]
        if len(names) > 1:
            waiting = "the summary of all waits for them"
            print(f"{len(failed)} of {len(names)} images failed; {waiting}", file=sys.stderr)
        raise InputError("\nerror: ".join(lines))
    distributed.wait_for_all()
    values = {name: done.get(name, inputs[name]) for name in inputs}
    values = {name: value for name, value in values.items() if value is not None}
    if count == 1 and len(values) < len(names):
        raise InputError(
            f"{done.folder}: images or results changed during the work; give a call with another "
            "model or other options a folder of its own"
        )
    return values
