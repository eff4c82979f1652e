"""The results of an experiment, read from the folders of its repeats."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from code_common.errors import InputError
from code_common.files.contents import refuse_unfinished
from code_common.files.layout import EVERY
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    STAGES,
    marker_path,
    marker_paths,
    metrics_path,
    options_path,
    repeat_number,
    results_folder,
    selection_path,
)
from code_common.old_runs import options_today

# The scores of a segmentation that are shown where there is no room for all of them.
SHOWN = ("pixel_f1", "object_dice", "aji", "pq", "centre_f1")
CENTRES = ("centre_precision", "centre_recall", "centre_f1")  # a run of an older version lacks them

# What the files of a run hold of what is read here: see `read_json`.
_SHOWN = {name + "?" * (name in CENTRES): float for name in SHOWN}
_COUNTED = dict.fromkeys(("precision", "recall", "f1"), float)
_INTERVALS = {str: (float, float)}
_OPTIONS = {
    "dataset": str,
    "ratio": float,
    "random_seed": float,
    "model": str,
    "pretrained": str,
    "batch_size": float,
    "lr": float,
    "epochs": float,
    "patient?": str,
    "data_dir?": str,
}
_OF_STAGE = {
    "detection": {"rounds": float},
    "segmentation": {"crf_epochs": float, "self_training_epochs?": float, "mask_epochs?": float},
}
_SAVED = {
    "commit?": str,
    "machine?": dict,
    "pretrained_loaded?": str,
    "crf_backend_used?": str,
    "contents?": str,
    "images?": str,
    "split?": str,
}
# Where options.json tells of the images and labels alone; an older run of stage 2 does not.
_IMAGES = {"detection": "contents", "segmentation": "images"}
# The forms of metrics.json of each stage.
_METRICS = {
    "detection": {
        "pooled": {EVERY: {str: float, "f1": float}},
        "interval?": _INTERVALS,
        "images": {str: {str: float, **_COUNTED}},
        "patients?": float,
    },
    "segmentation": {
        "instances": str,
        "mean": {str: {EVERY: {str: float, **_SHOWN}}},
        "interval?": {str: _INTERVALS},
        "images": {str: {str: {str: float, **_SHOWN}}},
        "patients?": float,
    },
}
# And that of tools/score.py.
SCORED = {
    "mean": {str: float},
    "pooled?": {str: float},
    "interval": {str: (float, float)},
    "patients": float,
    "images": dict,
}


class Scores(NamedTuple):
    """Scores on all test images by name, and the 95 % intervals of those that have one."""

    values: dict[str, float]
    intervals: dict[str, list[float]]


@dataclass(frozen=True)
class Repeat:
    """One repeat's folder and the results in it; a stage that was not run has none."""

    folder: Path
    saved: dict[str, dict]  # stage -> options.json
    detection: dict  # metrics.json, or {}
    segmentation: dict  # metrics.json, or {}

    @property
    def method(self) -> str:
        """The instance method that the validation images chose."""
        return self.segmentation.get("instances", "")

    @property
    def number(self) -> int:
        """K of the folder repeat_K."""
        return repeat_number(self.folder)

    def validation(self) -> float | None:
        """AJI of the chosen method on the validation images; None where they have no masks."""
        path = selection_path(self.folder / "segmentation")
        if not path.is_file():
            return None
        selection = read_json(path, {"val_aji?": {str: float}, "instances": str})
        return selection.get("val_aji", {}).get(self.method or selection["instances"])

    def is_scored(self) -> bool:
        """Whether it has scores of test images, or of validation images."""
        return bool(self.detection or self.segmentation) or self.validation() is not None

    def steps(self) -> dict[str, float]:
        """Seconds of each step that was done, in order: 'detection: prepare', ..."""
        seconds = {}
        for stage, path in ((s, p) for s in STAGES for p in marker_paths(self.folder / s)):
            marker = read_json(path, {"seconds": float})
            seconds[f"{stage}: {path.stem}"] = marker["seconds"]
        return seconds

    def seconds(self) -> float:
        """Seconds of all steps together."""
        return sum(self.steps().values())

    def tested(self) -> set[str]:
        """The stages that were done up to their test."""
        return {s for s in STAGES if marker_path(self.folder / s, "test").is_file()}


def read_repeat(folder: Path) -> Repeat:
    """Read a repeat's folder. Raises InputError where there is none, or where a file in it is not
    of this project, or a step of it is to be done again.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run")
    saved, metrics = {}, {}
    for stage in STAGES:
        refuse_unfinished(folder / stage)
        options_file = options_path(folder / stage)
        metrics_file = metrics_path(results_folder(folder / stage))
        if options_file.is_file():
            form = {**_SAVED, "options": _OPTIONS | _OF_STAGE[stage]}
            content = read_json(options_file, form)
            saved[stage] = {**content, "options": options_today(content["options"])}
        metrics[stage] = read_json(metrics_file, _METRICS[stage]) if metrics_file.is_file() else {}
    segmentation = metrics["segmentation"]
    for table in ("mean", "images"):
        for rows in segmentation.get(table, {}).values():
            for scores in rows.values():
                scores |= {name: nan for name in CENTRES if name not in scores}
    return Repeat(folder, saved, metrics["detection"], segmentation)


def finished_repeats(folders: Sequence[Path]) -> list[Repeat]:
    """What `read_repeat` gives of each folder; a line names those that are left out: unfinished
    ones, and those with a damaged file.
    """
    repeats = []
    for folder in folders:
        try:
            repeats.append(read_repeat(folder))
        except InputError as error:
            print(f"left out: {error}")
    return repeats


def scores_of(repeat: Repeat) -> dict[str, Scores]:
    """The scores of 'detection', and of the segmentation by each instance method."""
    scores = {}
    if repeat.detection:
        pooled, intervals = repeat.detection["pooled"], repeat.detection.get("interval", {})
        scores["detection"] = Scores(pooled[EVERY], intervals)
    intervals = repeat.segmentation.get("interval", {})
    for method, groups in repeat.segmentation.get("mean", {}).items():
        scores[method] = Scores(groups[EVERY], intervals.get(method, {}))
    return scores


def scores_by_column(repeats: Sequence[Repeat]) -> dict[str, list[Scores]]:
    """What `scores_of` gives, by column: of the repeats that have it."""
    scores = [scores_of(repeat) for repeat in repeats]
    columns = dict.fromkeys(column for s in scores for column in s)
    return {column: [s[column] for s in scores if column in s] for column in columns}


def checked(repeats: Sequence[Repeat], free: Collection[str]) -> tuple[list[Repeat], list[str]]:
    """The repeats, but for copies of others, and a line for all that does not fit together.

    free: options that no result depends on.
    """
    kept, lines = [], []
    for repeat in repeats:
        copied = {s: r for r in kept for s in repeat.saved if _is_copy(s, repeat, r, free)}
        if copied and len(copied) == len(repeat.saved):
            of = ", ".join(sorted({r.folder.name for r in copied.values()}))
            lines.append(f"left out: {repeat.folder}: a copy of {of}, with its --repeat and seed")
            continue
        kept.append(repeat)
        lines += [
            f"{repeat.folder / stage}: a copy of that of {of.folder.name}, no repeat of its own"
            for stage, of in copied.items()
        ]
    return kept, [*lines, *other_data(kept), *other_options(kept, {*free, "repeat"})]


def _is_copy(stage: str, repeat: Repeat, other: Repeat, free: Collection[str]) -> bool:
    """Whether a stage was made of the same data with the same options, repeat and seed included."""
    if stage not in other.saved or "repeat" not in repeat.saved[stage]["options"]:
        return False
    options = [r.saved[stage]["options"] for r in (other, repeat)]
    data = [_data_of(r, stage) for r in (other, repeat)]
    return not differing(*options, free) and not differing(*data)


def differing(before: dict, now: dict, free: Collection[str] = ()) -> list[str]:
    """The names that two tables share with different values, but for those in `free`."""
    return [n for n in now if n in before and now[n] != before[n] and n not in free]


def _data_of(repeat: Repeat, stage: str) -> dict[str, str]:
    """What the images, labels and sets of a stage are recognised by; an older run lacks it."""
    names = {"images": _IMAGES[stage], "split": "split"}
    saved = repeat.saved[stage]
    return {name: saved[noted] for name, noted in names.items() if noted in saved}


def data_of(repeats: Sequence[Repeat]) -> dict[str, str]:
    """What the images, labels and sets of repeats are recognised by: of the first that tells it."""
    data: dict[str, str] = {}
    for repeat in repeats:
        for stage in repeat.saved:
            data = _data_of(repeat, stage) | data
    return data


def other_data(repeats: Sequence[Repeat]) -> list[str]:
    """A line for each stage that was made of other data than the first one that tells of them."""
    data = data_of(repeats)
    places = [(r, s) for r in repeats for s in r.saved if _data_of(r, s)]
    return [
        f"{repeat.folder / stage}: made of other images, labels or sets than "
        f"{places[0][0].folder.name}/{places[0][1]}"
        for repeat, stage in places
        if differing(data, _data_of(repeat, stage))
    ]


def other_options(repeats: Sequence[Repeat], free: Collection[str]) -> list[str]:
    """A line for each stage of a repeat that was made with other options than the first one's.

    free: options that may differ.
    """
    lines = []
    for stage in STAGES:
        first, *others = [r for r in repeats if stage in r.saved] or [None]
        for repeat in others:
            before, now = (r.saved[stage]["options"] for r in (first, repeat))
            if names := differing(before, now, free):
                words = ", ".join(f"{n} {now[n]} instead of {before[n]}" for n in names)
                lines.append(
                    f"{repeat.folder / stage}: other options than {first.folder.name}: {words}"
                )
    return lines


def score_lines(repeats: Sequence[Repeat]) -> list[str]:
    """The scores as lines to print."""
    lines = []
    for column, scores in scores_by_column(repeats).items():
        names = ("f1",) if column == "detection" else SHOWN
        cells = [spread([s.values[name] for s in scores], of=len(repeats)) for name in names]
        values = [f"{name} {cell}" for name, cell in zip(names, cells, strict=True) if cell]
        lines.append(f"{column:12s}  {'  '.join(values)}")
    return lines


def share(ratio: float) -> str:
    """How much is annotated, in words. At ratio 1 that may be a part of the nuclei as well."""
    return "all points given" if ratio == 1 else f"{100 * ratio:g}% of the points"


def spread(values: Sequence[float], digits: int = 3, of: int = 0) -> str:
    """Mean, the standard deviation where there are several values, and their number where there
    should be more, one of each of `of` repeats. Unknown values (nan) are left out; '' where none
    is known.
    """
    values = [value for value in values if not isnan(value)]
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    number = f" ({len(values)} of {of})" if len(values) < of else ""
    return f"{mean(values):.{digits}f}{deviation}{number}"


def with_interval(value: float, interval: Sequence[float] | None, digits: int = 3) -> str:
    """A value and its interval, where it has one; '' where the value is unknown (nan)."""
    if isnan(value):
        return ""
    text = f"{value:.{digits}f}"
    if not interval:
        return text
    low, high = (f"{end:.{digits}f}" for end in interval)
    return f"{text} [{low}, {high}]"
