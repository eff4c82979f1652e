"""Experiments side by side: tables of scores and differences, AJI against annotation."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from code_common.files.writing import write_text
from code_common.reporting.charts import Chart, Series, to_svg
from code_common.reporting.differences import difference_section
from code_common.reporting.experiments import Experiment, distinct_names
from code_common.reporting.page import Section, Table, to_html, to_markdown
from code_common.reporting.results import SHOWN, Repeat, checked, data_of, differing, spread


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
        rows.append([e.label, str(count), *cells, minutes(e.repeats)])
    heads = ["detection F1", *(f"{score}, {method}" for method, score in columns[1:])]
    return Table(["run", "repeats", "validation AJI", *heads, "minutes"], rows, sortable=True)


def minutes(repeats: Sequence[Repeat]) -> str:
    """How long a repeat took: of those that did most stages; a stage alone is named."""
    done = max((repeat.tested() for repeat in repeats), key=len)
    seconds = [repeat.seconds() for repeat in repeats if done and repeat.tested() == done]
    text = spread([second / 60 for second in seconds], 1, of=len(repeats))
    return f"{text}, {min(done)} alone" if len(done) == 1 else text


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
