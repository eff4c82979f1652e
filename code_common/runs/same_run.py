"""Whether a run folder holds the run that is asked for: with its options, made of its files."""

from pathlib import Path

from code_common.config import as_json, fingerprint, flag_of, shown_fields
from code_common.errors import InputError
from code_common.files.contents import Inputs, files_fingerprint, refuse_unfinished
from code_common.files.data_set import load_split, read_split
from code_common.files.layout import SPLIT
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    detections_path,
    marker_paths,
    options_path,
    points_path,
    selection_path,
)
from code_common.old_runs import checkpoint_path, options_today, refuse_removed
from code_common.options import CommonOptions, is_weights_file

OTHER = "give another --root-save-dir, or --restart to throw that run away"


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
        values = [before.get(name, now[name]), now[name]]
        if all(is_weights_file(name, value) for value in values):
            continue  # `refuse_other_files` compares what is in them
        if values[0] != values[1]:
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
