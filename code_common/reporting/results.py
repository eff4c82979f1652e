"""The results of an experiment, read from the folders of its repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import STAGES

SHOWN = ("pixel_f1", "object_dice", "aji", "pq")  # of a test image, beside detection F1


@dataclass(frozen=True)
class Repeat:
    """One repeat's folder and the results that it holds; a stage that was not run has none."""

    folder: Path
    options: dict[str, dict]  # stage -> options.json
    detection: dict  # metrics.json, or {}
    segmentation: dict

    @property
    def method(self) -> str:
        """The instance method that the validation images chose."""
        return self.segmentation.get("instances", "")

    def validation(self) -> float | None:
        """AJI of the chosen method on the validation images, where they have masks."""
        path = self.folder / "segmentation" / "selection.json"
        return read_json(path).get("val_aji", {}).get(self.method) if path.is_file() else None

    def steps(self) -> dict[str, float]:
        """Seconds of each step that was done, in order."""
        markers = sorted(self.folder.glob("*/.done/*.json"), key=lambda p: p.stat().st_mtime)
        return {f"{p.parts[-3]}: {p.stem}": read_json(p)["seconds"] for p in markers}

    def seconds(self) -> float:
        """Seconds of all of them."""
        return sum(self.steps().values())


def read_repeat(folder: Path) -> Repeat:
    """Read a repeat's folder; InputError where there is none or a file is not of this project."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run")
    saved = {s: folder / s / "options.json" for s in STAGES}
    options = {s: read_json(p) for s, p in saved.items() if p.is_file()}
    metrics = [folder / s / "test" / "metrics.json" for s in STAGES]
    scores = [read_json(p) if p.is_file() else {} for p in metrics]
    known = all(isinstance(o, dict) and isinstance(o.get("options"), dict)
                for o in options.values())  # fmt: skip
    if not known or any(s and not {"pooled", "mean"} & set(s) for s in scores):
        raise InputError(f"{folder}: options.json or metrics.json is not of this project")
    return Repeat(folder, options, *scores)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and the standard deviation where there are several values."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def with_interval(value: float, interval: Sequence[float] | None, digits: int = 3) -> str:
    """A value and its interval, where there is one."""
    text = f"{value:.{digits}f}"
    if not interval:
        return text
    low, high = (f"{v:.{digits}f}" for v in interval)
    return f"{text} [{low}, {high}]"


def scores_of(repeat: Repeat) -> dict[str, tuple[dict[str, float], dict[str, list[float]]]]:
    """'detection' and each instance method -> (scores, their intervals) on all test images."""
    found = {}
    if repeat.detection:
        found["detection"] = repeat.detection["pooled"]["all"], repeat.detection.get("interval", {})
    for method, groups in repeat.segmentation.get("mean", {}).items():
        own = repeat.segmentation.get("interval", {}).get(method, {})
        found[method] = groups["all"], own
    return found


def told(repeats: Sequence[Repeat]) -> list[str]:
    """The scores as lines to print."""
    lines, each = [], [scores_of(r) for r in repeats]
    for column in each[0]:
        if all(column in own for own in each):
            names = ("f1",) if column == "detection" else SHOWN
            values = [f"{n} {spread([own[column][0][n] for own in each])}" for n in names]
            lines.append(f"{column:12s}  {'  '.join(values)}")
    return lines
