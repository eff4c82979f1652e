"""Compare experiments: mean ± deviation over repeats, paired bootstrap, AJI against annotation.

python tools/compare.py --runs experiments/MO --out compared
python tools/compare.py --runs paper=experiments/MO points=other/MO/ratio_0.1 --out compared

A run is a folder of repeats (ratio_R), or of several of those; NAME= calls it something.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from code_common.errors import InputError
from code_common.files.writing import write_bytes, write_png
from code_common.reporting.bootstrap import paired, patients
from code_common.reporting.charts import Chart, Series, to_pixels, to_svg
from code_common.reporting.page import Section, Table, to_html, to_markdown
from code_common.reporting.results import SHOWN, Repeat, read_repeat, scores_of, spread


@dataclass(frozen=True)
class Experiment:
    """The repeats of one ratio, under the name that they were given on the command line."""

    name: str
    folder: Path
    repeats: list[Repeat]

    def option(self, name: str) -> object:
        """An option of the segmentation, or of the detection where there is none."""
        saved = self.repeats[0].options
        return saved.get("segmentation", saved.get("detection"))["options"].get(name)

    @property
    def ratio(self) -> float:
        """Share of the nuclei that is annotated."""
        return float(self.option("ratio"))

    @property
    def label(self) -> str:
        """Name and ratio."""
        return f"{self.name} {self.ratio:.0%}"

    def values(self, column: str, score: str) -> list[float]:
        """A score of each repeat; empty where one lacks it."""
        found = [scores_of(r).get(column) for r in self.repeats]
        return [f[0][score] for f in found] if all(found) else []

    def chosen(self, score: str) -> dict[str, float]:
        """A score of each test image by the method that validation chose: mean over repeats."""
        images = [r.segmentation.get("images", {}).get(r.method, {}) for r in self.repeats]
        return {n: mean(own[n][score] for own in images)
                for n in images[0] if all(n in own for own in images)}  # fmt: skip


def find(given: str) -> list[Experiment]:
    """The experiments of one --runs argument. Raises InputError where there is none."""
    name, _, path = given.rpartition("=")
    folder = Path(path)
    own = [folder] if any(folder.glob("repeat_*")) else sorted(folder.glob("ratio_*"))
    found = []
    for place in own:
        repeats = sorted(place.glob("repeat_*"), key=lambda p: (len(p.name), p.name))
        read = [read_repeat(r) for r in repeats if r.is_dir()]
        done = [r for r in read if r.detection or r.segmentation]
        if done:
            default = place.parent.name if place.name.startswith("ratio_") else place.name
            found.append(Experiment(name or default, place, done))
    if not found:
        raise InputError(f"{folder}: no finished runs; expected ratio_R/repeat_K in it")
    return sorted(found, key=lambda e: e.ratio)


def methods(experiments: Sequence[Experiment]) -> list[str]:
    """The instance methods that any of the runs was scored by."""
    scored = [r.segmentation.get("mean", {}) for e in experiments for r in e.repeats]
    return list(dict.fromkeys(method for own in scored for method in own))


def score_table(experiments: Sequence[Experiment]) -> Table:
    """Mean ± standard deviation over the repeats."""
    columns = [("detection", "f1"), *((m, s) for m in methods(experiments) for s in SHOWN)]
    rows = []
    for e in experiments:
        cells = [spread(v) if (v := e.values(*c)) else "" for c in columns]
        minutes = spread([r.seconds() / 60 for r in e.repeats], 1)
        known = [v for r in e.repeats if (v := r.validation()) is not None]
        rows.append([e.label, str(len(e.repeats)), spread(known) if known else "", *cells, minutes])
    heads = ["detection F1", *(f"{s}, {m}" for m, s in columns[1:])]
    return Table(["run", "repeats", "validation AJI", *heads, "minutes"], rows, sortable=True)


def difference_table(experiments: Sequence[Experiment]) -> Table:
    """Each run against the first one on the images that both scored, drawn by patient."""
    first, *others = experiments
    pattern, rows = str(first.option("patient") or "(?!)"), []
    for e in others:
        cells, images = [], 0
        for score in SHOWN:
            a, b = first.chosen(score), e.chosen(score)
            names = [n for n in a if n in b]
            images = len(names)
            if not names:
                cells.append("")
                continue
            known = patients(names, pattern)
            change, interval, sure = paired(known, [a[n] for n in names], [b[n] for n in names])
            within = f" [{interval[0]:+.3f}, {interval[1]:+.3f}], {sure:.0%}" if interval else ""
            cells.append(f"{change:+.3f}{within}")
        rows.append([e.label, str(images), *cells])
    return Table(["run", "images", *SHOWN], rows)


def plot(experiments: Sequence[Experiment]) -> Chart:
    """AJI against the share of annotated nuclei; bars are the deviation over repeats."""
    groups: dict[str, list[Experiment]] = {}
    for e in experiments:
        groups.setdefault(e.name, []).append(e)
    series = []
    for name, own in groups.items():
        own = sorted(own, key=lambda e: e.ratio)
        for method in methods(experiments):
            values = [(100 * e.ratio, v) for e in own if (v := e.values(method, "aji"))]
            if not values:
                continue
            x, y = [x for x, _ in values], [mean(v) for _, v in values]
            spreads = [stdev(v) if len(v) > 1 else math.nan for _, v in values]
            series.append(Series(
                method if len(groups) == 1 else f"{name}, {method}", x, y,
                [m - s for m, s in zip(y, spreads, strict=True)],
                [m + s for m, s in zip(y, spreads, strict=True)],
            ))  # fmt: skip
    ticks = sorted({100 * e.ratio for e in experiments})
    return Chart("AJI against annotation", "annotated nuclei in %", "AJI", series,
                 x_ticks=[(t, f"{t:g}") for t in ticks])  # fmt: skip


def write_comparison(experiments: Sequence[Experiment], out: Path) -> None:
    """Write compare.html, compare.md and the plot; print the scores."""
    sets = sorted({str(e.option("dataset")) for e in experiments})
    title = f"{', '.join(sets)}: {len(experiments)} experiments"
    chart, table = plot(experiments), score_table(experiments)
    sections = [
        Section("Scores", "Test images; mean ± standard deviation over the repeats.", [table]),
        Section("AJI against annotation", "Bars: standard deviation over the repeats.",
                charts=[chart]),
    ]  # fmt: skip
    if len(experiments) > 1:
        text = (
            f"Mean over the test images that both scored, minus {experiments[0].label}, instances "
            "as the validation images chose; each image is the mean of its repeats. In brackets: "
            "95 % interval of a paired bootstrap over patients, and the share of resamples with "
            "this sign. It says how the images matter, not how seeds do."
        )
        sections.append(Section("Differences", text, [difference_table(experiments)]))
    rows = [
        [e.label, str(r.folder), ", ".join(str(o.get("commit")) for o in r.options.values())]
        for e in experiments
        for r in e.repeats
    ]
    sections.append(Section("Runs", tables=[Table(["run", "folder", "commits"], rows)]))
    write_bytes(out / "compare.html", to_html(title, sections).encode())
    write_bytes(out / "compare.md", to_markdown(title, sections).encode())
    write_bytes(out / "aji_against_annotation.svg", to_svg(chart).encode())
    write_png(out / "aji_against_annotation.png", to_pixels(chart))
    for row in table.rows:
        print("  ".join(f"{h} {c}" for h, c in zip(table.head, row, strict=True) if c))
    print(f"see {out / 'compare.html'}")
