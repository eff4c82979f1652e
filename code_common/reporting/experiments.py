"""Experiments: the repeats of one ratio, found in folders and named for tables."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from code_common.errors import InputError
from code_common.files.run_folder import ratio_folders, repeat_folders
from code_common.reporting.results import SHOWN, Repeat, finished_repeats, scores_by_column


@dataclass(frozen=True)
class Experiment:
    """The repeats of one ratio, and the name that the tables give them."""

    name: str
    folder: Path
    repeats: list[Repeat]

    def option(self, name: str) -> object:
        """An option of the segmentation, or of the detection where there is no segmentation."""
        saved = self.repeats[0].saved
        return saved.get("segmentation", saved.get("detection"))["options"].get(name)

    @property
    def ratio(self) -> float:
        """Share of the nuclei that is annotated."""
        return float(self.option("ratio"))

    @property
    def label(self) -> str:
        """Name and ratio."""
        return f"{self.name} {100 * self.ratio:g}%"

    def values(self, column: str, score: str) -> list[float]:
        """A score of 'detection' or of an instance method, of the repeats that have it."""
        return [s.values[score] for s in scores_by_column(self.repeats).get(column, [])]

    def image_scores(self, numbers: Collection[int] = ()) -> dict[str, dict[str, float]]:
        """Scores of each test image by the method that validation chose: means over the repeats
        that have them. numbers: of the repeats that count, if not all.
        """
        repeats = [r for r in self.repeats if r.method and (not numbers or r.number in numbers)]
        images = [r.segmentation["images"].get(r.method, {}) for r in repeats]
        names = [n for n in images[0] if all(n in scores for scores in images)] if images else []
        return {
            name: {score: mean(scores[name][score] for scores in images) for score in SHOWN}
            for name in names
        }


def find_experiments(argument: str) -> list[Experiment]:
    """The experiments of one --runs argument, [NAME=]DIR.

    Raises InputError where DIR has no finished run.
    """
    name, _, folder = argument.rpartition("=")
    if Path(argument).is_dir():  # a folder with an equals sign in its name
        name, folder = "", argument
    experiments = finished_experiments(Path(folder), name)
    if not experiments:
        raise InputError(f"{folder}: no run with scores; {_what_is_there(Path(folder))}")
    return experiments


def _what_is_there(folder: Path) -> str:
    """What a folder without scores holds, in words."""
    repeats = [r for ratio in (folder, *ratio_folders(folder)) for r in repeat_folders(ratio)]
    if not folder.is_dir():
        return "no such folder"
    if not repeats:
        return "no folder ratio_R or repeat_K in it"
    return (
        f"{len(repeats)} in it that are unfinished, or without masks of validation and test images "
        f"(first: {repeats[0]})"
    )


def distinct_names(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The experiments; those of one name get that of their data set, too, where it is another one
    than the first one's, and that of their folder where they have one ratio.
    """
    firsts: dict[str, object] = {}
    by_set = []
    for e in experiments:
        dataset = e.option("dataset")
        is_other = firsts.setdefault(e.name, dataset) != dataset
        by_set.append(replace(e, name=f"{e.name}, {dataset}") if is_other else e)
    labels = [e.label for e in by_set]
    return [
        replace(e, name=f"{e.name} ({e.folder})") if labels.count(e.label) > 1 else e
        for e in by_set
    ]


def finished_experiments(folder: Path, name: str = "") -> list[Experiment]:
    """The experiments of a folder that have scores, of test or of validation images, by ratio.

    folder: holds repeats, or ratio_R folders that hold repeats; name: what to call them, instead
    of the name of the data set's folder.
    """
    ratios = [folder] if repeat_folders(folder) else ratio_folders(folder)
    experiments = []
    for ratio in ratios:
        repeats = finished_repeats(repeat_folders(ratio))
        scored = [repeat for repeat in repeats if repeat.is_scored()]
        if scored:
            default = ratio.parent.name if ratio.name.startswith("ratio_") else ratio.name
            experiments.append(Experiment(name or default, ratio, scored))
    return sorted(experiments, key=lambda experiment: experiment.ratio)
