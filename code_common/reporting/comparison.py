"""Experiments side by side: tables of scores and differences, AJI against annotation."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from code_common.errors import InputError
from code_common.files.run_folder import ratio_folders, repeat_folders
from code_common.files.writing import write_text
from code_common.reporting.bootstrap import paired, patients
from code_common.reporting.charts import Chart, Series, to_svg
from code_common.reporting.page import Section, Table, to_html, to_markdown
from code_common.reporting.results import (
    SHOWN,
    Repeat,
    checked,
    data_of,
    differing,
    finished_repeats,
    scores_by_column,
    spread,
)

NO_PATIENT = "(?!)"  # a pattern that matches nothing: each image is a patient of its own


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

    def image_scores(self) -> dict[str, dict[str, float]]:
        """Scores of each test image by the method that validation chose: means over the repeats
        that have them.
        """
        images = [r.segmentation["images"].get(r.method, {}) for r in self.repeats if r.method]
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
        f"{len(repeats)} in it without test/metrics.json: unfinished, or without labelled test "
        f"images (first: {repeats[0]})"
    )


def distinct_names(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The experiments; those of one name and ratio in several folders get their folder's, too."""
    labels = [e.label for e in experiments]
    return [
        replace(e, name=f"{e.name} ({e.folder})") if labels.count(e.label) > 1 else e
        for e in experiments
    ]


def finished_experiments(folder: Path, name: str = "") -> list[Experiment]:
    """The experiments of a folder that have scores, by ratio.

    folder: holds repeats, or ratio_R folders that hold repeats; name: what to call them, instead
    of the name of the data set's folder.
    """
    ratios = [folder] if repeat_folders(folder) else ratio_folders(folder)
    experiments = []
    for ratio in ratios:
        repeats = finished_repeats(repeat_folders(ratio))
        scored = [repeat for repeat in repeats if repeat.detection or repeat.segmentation]
        if scored:
            default = ratio.parent.name if ratio.name.startswith("ratio_") else ratio.name
            experiments.append(Experiment(name or default, ratio, scored))
    return sorted(experiments, key=lambda experiment: experiment.ratio)


def write_comparison(
    experiments: Sequence[Experiment], out: Path, free: Collection[str] = ()
) -> None:
    """Write compare.html, compare.md and the chart into the folder `out`; print the scores.

    free: options that no result depends on. What does not fit together is told, see `checked`.
    """
    notes, with_repeats = [], []
    for e in distinct_names(experiments):
        repeats, told = checked(e.repeats, free)
        with_repeats.append(replace(e, repeats=repeats))
        notes += told
    experiments = with_repeats
    notes += pairs_of_other_data(experiments)
    datasets = sorted({str(e.option("dataset")) for e in experiments})
    title = f"{', '.join(datasets)}: {len(experiments)} experiments"
    chart, table = aji_chart(experiments), score_table(experiments)
    sections = [
        Section("Scores", "Test images; mean ± standard deviation over the repeats.", [table]),
        Section(chart.title, "Error bars: standard deviation over the repeats.", charts=[chart]),
    ]
    if len(experiments) > 1:
        sections.append(difference_section(experiments))
    sections.append(Section("Runs", "; ".join(notes), tables=[run_table(experiments)]))
    write_text(out / "compare.html", to_html(title, sections))
    write_text(out / "compare.md", to_markdown(title, sections))
    write_text(out / "aji_against_annotation.svg", to_svg(chart))
    for note in notes:
        print(note)
    for row in table.rows:
        cells = zip(table.head, row, strict=True)
        print("  ".join(f"{head} {cell}" for head, cell in cells if cell))
    print(f"see {out / 'compare.html'}")


def pairs_of_other_data(experiments: Sequence[Experiment]) -> list[str]:
    """A line for each experiment that has other data than the first one of its data set's name."""
    firsts: dict[object, Experiment] = {}
    lines = []
    for e in experiments:
        first = firsts.setdefault(e.option("dataset"), e)
        if differing(data_of(first.repeats), data_of(e.repeats)):
            lines.append(
                f"{e.label}: made of other images, labels or sets than {first.label}; images are "
                "paired by their names"
            )
    return lines


def instance_methods(experiments: Sequence[Experiment]) -> list[str]:
    """The instance methods that any of the runs was scored by."""
    scores = [r.segmentation.get("mean", {}) for e in experiments for r in e.repeats]
    return list(dict.fromkeys(method for by_method in scores for method in by_method))


def score_table(experiments: Sequence[Experiment]) -> Table:
    """Mean ± standard deviation over the repeats."""
    methods = instance_methods(experiments)
    columns = [("detection", "f1"), *((method, score) for method in methods for score in SHOWN)]
    rows = []
    for e in experiments:
        validation = [v for repeat in e.repeats if (v := repeat.validation()) is not None]
        scores = [e.values(*column) for column in columns]
        every, count = (validation, *scores), len(e.repeats)
        cells = [spread(values, of=count) if values else "" for values in every]
        minutes = spread([repeat.seconds() / 60 for repeat in e.repeats], 1)
        rows.append([e.label, str(count), *cells, minutes])
    heads = ["detection F1", *(f"{score}, {method}" for method, score in columns[1:])]
    return Table(["run", "repeats", "validation AJI", *heads, "minutes"], rows, sortable=True)


def difference_section(experiments: Sequence[Experiment]) -> Section:
    """Each experiment against the first one, on the images that both scored."""
    first, *others = experiments
    before, rows = first.image_scores(), []
    for other in others:
        after = other.image_scores()
        same_set = other.option("dataset") == first.option("dataset")
        images = [name for name in before if name in after] if same_set else []
        groups = patients(images, str(first.option("patient") or NO_PATIENT))
        cells = []
        for score in SHOWN:
            pair = [[scores[name][score] for name in images] for scores in (before, after)]
            cells.append(difference(groups, *pair) if images else "")
        rows.append([other.label, str(len(images)), *cells])
    text = (
        f"Mean over the test images that both scored, minus {first.label}. Images of another data "
        "set are none of them, whatever their names. Instances are those of "
        "the method that the validation images chose. Each image counts with its mean over the "
        "repeats. In brackets: 95 % interval of a paired bootstrap over patients. Then: the share "
        "of resamples in which the difference has this sign. Both say how much depends on the "
        "choice of images, not on the seed."
    )
    return Section("Differences", text, [Table(["run", "images", *SHOWN], rows)])


def difference(groups: Sequence[str], first: Sequence[float], second: Sequence[float]) -> str:
    """Mean of `second` - `first` over images, its interval by group, and how sure its sign is."""
    change, interval, same_sign = paired(groups, first, second)
    if math.isnan(change):
        return ""
    if not interval:
        return f"{change:+.3f}"
    low, high = interval
    return f"{change:+.3f} [{low:+.3f}, {high:+.3f}], {same_sign:.0%}"


def run_table(experiments: Sequence[Experiment]) -> Table:
    """The folder of each run, and the commits of the code that made it."""
    rows = []
    for e in experiments:
        for repeat in e.repeats:
            commits = ", ".join(str(saved.get("commit")) for saved in repeat.saved.values())
            rows.append([e.label, str(repeat.folder), commits])
    return Table(["run", "folder", "commits"], rows)


def aji_chart(experiments: Sequence[Experiment]) -> Chart:
    """AJI against the share of annotated nuclei; error bars are the deviation over repeats."""
    groups: dict[str, list[Experiment]] = {}
    for e in experiments:
        groups.setdefault(e.name, []).append(e)
    series = []
    for name, group in groups.items():
        for method in instance_methods(experiments):
            title = method if len(groups) == 1 else f"{name}, {method}"
            series += _aji_series(title, group, method)
    ticks = sorted({100 * e.ratio for e in experiments})
    return Chart(
        "AJI against annotation",
        "annotated nuclei in %",
        "AJI",
        series,
        x_ticks=[(tick, f"{tick:g}") for tick in ticks],
    )


def _aji_series(title: str, group: Sequence[Experiment], method: str) -> list[Series]:
    """The line of one instance method; none where no experiment of the group has it."""
    ordered = sorted(group, key=lambda experiment: experiment.ratio)
    scored = [(100 * e.ratio, values) for e in ordered if (values := e.values(method, "aji"))]
    if not scored:
        return []
    means = [mean(values) for _, values in scored]
    deviations = [stdev(values) if len(values) > 1 else math.nan for _, values in scored]
    ends = list(zip(means, deviations, strict=True))
    return [
        Series(
            title,
            x=[percent for percent, _ in scored],
            y=means,
            low=[m - d for m, d in ends],
            high=[m + d for m, d in ends],
        )
    ]
