"""The sections of an experiment's report: scores, curves, pictures, times, options."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from code_common.files.reading import read_json, read_table
from code_common.files.run_folder import STAGES
from code_common.reporting.album import Figure, read_album, strip
from code_common.reporting.charts import Chart, Series
from code_common.reporting.page import Section, Table
from code_common.reporting.results import SHOWN, Repeat, scores_of, spread, with_interval

OVERVIEW_HEIGHT = 260
# What a column of log.csv that is no term of the loss is called.
NOT_A_TERM = ("epoch", "seconds", "images_per_s", "data_share", "forward_share", "backward_share")
LENGTHS = ("mean_distance", "std_distance", "object_hausdorff")  # in pixels, not 0..1


def score_section(repeats: Sequence[Repeat]) -> Section:
    """Scores on the test images: with intervals for one repeat, with deviations for several."""
    each = [scores_of(r) for r in repeats]
    columns = [c for c in each[0] if all(c in own for own in each)]
    if not columns:
        return Section("Scores", "No test image has labels to score against.")

    def cell(column: str, name: str) -> str:
        digits = 2 if name in LENGTHS else 3
        if len(each) > 1:
            return spread([own[column][0][name] for own in each], digits)
        scores, interval = each[0][column]
        return with_interval(scores[name], interval.get(name), digits)

    tables = []
    methods = [c for c in columns if c != "detection"]
    for group in (["detection"] if "detection" in columns else [], methods):
        if group:
            names = list(each[0][group[0]][0])
            rows = [[name, *(cell(c, name) for c in group)] for name in names]
            tables.append(Table(["score", *group], rows))
    first = repeats[0].segmentation or repeats[0].detection
    images = len(next(iter(first["images"].values()), {}) if methods else first["images"])
    text = f"{images} test images"
    if first.get("patients", images) < images:
        text += f" of {first['patients']} patients"
    text += (
        ". Detection is pooled over the images; segmentation is the mean over them, with instances "
        "by connected components, split by the detected points, and as convex nuclei. "
    )
    if len(repeats) > 1:
        text += f"Mean ± standard deviation over {len(repeats)} repeats. "
        keys = [("detection", "f1"), *((m, s) for m in methods for s in ("aji", "pq"))]
        keys = [(c, s) for c, s in keys if c in columns]
        rows = [[r.folder.name, *(with_interval(own[c][0][s], own[c][1].get(s)) for c, s in keys)]
                for r, own in zip(repeats, each, strict=True)]  # fmt: skip
        tables.append(Table(["repeat", *(f"{c}: {s}" for c, s in keys)], rows))
    if any(own[c][1] for own in each for c in columns):
        text += "In brackets: 95 % bootstrap interval over images, by patient where names tell. "
    if methods:
        chosen = ", ".join(sorted({r.method for r in repeats}))
        text += f"The validation images chose the instances by: {chosen}."
    return Section("Scores", text, tables)


def annotated(folder: Path, ratio: float) -> str:
    """How many points were annotated in how many training images."""
    tables = [read_table(p) for p in sorted(folder.glob("*.csv"))]
    points = sum(len(t["row"]) for t in tables)
    return f"{ratio:.0%} of each training image; {points} points in {len(tables)} images"


def run_section(repeats: Sequence[Repeat]) -> Section:
    """What ran, on what."""
    rows: list[list[str]] = []
    for stage in STAGES:
        every = [r.options[stage] for r in repeats if stage in r.options]
        if not every:
            continue
        first, o = every[0], every[0]["options"]
        if not rows:
            rows += [
                ["data set", f"{o['dataset']} ({o['data_dir']})"],
                ["annotated nuclei", annotated(repeats[0].folder / stage / "points", o["ratio"])],
                ["random seed", f"{o['random_seed']}" + (f"; {len(repeats)} repeats, each with "
                                "other points and other weights" if len(repeats) > 1 else "")],
            ]  # fmt: skip
        weights = first.get("pretrained_loaded") or o["pretrained"]
        epochs = f"{o['epochs']} epochs"
        if stage == "detection":
            epochs = f"{o['rounds'] + 1} rounds of {epochs}"
        else:
            if o.get("mask_epochs"):  # older runs have none
                epochs += f", {o['mask_epochs']} on its own nuclei"
            epochs += f" and {o['crf_epochs']} with the dense CRF loss"
            if first.get("crf_backend_used"):
                epochs += f" ({first['crf_backend_used']})"
        members = o.get("members", 1)
        model = f"{members} networks {o['model']}" if members > 1 else o["model"]
        rows.append([stage, f"{model}, first weights: {weights}; {epochs}, "
                            f"batches of {o['batch_size']}, lr {o['lr']:g}"])  # fmt: skip
        machine = ", ".join(f"{k} {v}" for k, v in first.get("machine", {}).items())
        rows.append([f"{stage}: code and machine",
                     f"commit {first.get('commit', 'unknown')}; {machine}"])  # fmt: skip
    return Section("What ran", tables=[Table(["", ""], rows, words=True)])


def read_logs(paths: Sequence[Path]) -> tuple[dict[str, list[float]], list[int]]:
    """Columns of several log.csv one after the other, NaN where one has none, and their starts."""
    tables = [read_table(p) for p in paths if p.is_file()]
    names = list(dict.fromkeys(name for table in tables for name in table))
    columns: dict[str, list[float]] = {name: [] for name in names}
    starts = []
    for table in tables:
        length = len(next(iter(table.values())))
        starts.append(len(columns["epoch"]))
        for name in names:
            columns[name] += table[name].tolist() if name in table else [math.nan] * length
    return columns, starts


def curves(folder: Path) -> list[Chart]:
    """Loss and validation scores of both stages by epoch."""
    rounds = sorted(folder.glob("detection/round_*/log.csv"),
                    key=lambda p: int(p.parent.name.split("_")[1]))  # fmt: skip
    begins = {"labels": "", "masks": "own nuclei", "crf": "CRF starts"}
    begun = [p for p in begins if (folder / "segmentation" / p / "log.csv").is_file()]
    phases = [folder / "segmentation" / p / "log.csv" for p in begun]
    charts = []
    for stage, paths in (("detection", rounds), ("segmentation", phases)):
        columns, starts = read_logs(paths)
        if not columns:
            continue
        x = [k + 1 for k in range(len(columns["epoch"]))]
        words = [begins[p] for p in begun]
        if stage == "detection":
            words = [f"round {k}" for k in range(len(starts))]
        rules = [(s + 0.5, w) for s, w in zip(starts, words, strict=True) if s]
        terms = [n for n in columns if n not in NOT_A_TERM and not n.startswith("val_")]
        terms = terms if len(terms) > 2 else ["loss"]  # one term is the loss itself
        series = [Series(n, x, columns[n], marked=False) for n in terms]
        charts.append(Chart(f"{stage}: training loss", "epoch", "loss", series, rules,
                            from_zero=True))  # fmt: skip
        names = [n for n in columns if n.startswith("val_") and n != "val_score"]
        if names:
            series = [Series(n.removeprefix("val_"), x, columns[n]) for n in names]
            charts.append(Chart(f"{stage}: validation", "epoch", "validation score", series, rules))
    return charts


def image_section(repeats: Sequence[Repeat]) -> Section | None:
    """One row for each test image, means over the repeats."""
    method = repeats[0].method
    columns: dict[str, list[dict[str, dict[str, float]]]] = {}
    if all(r.detection for r in repeats):
        own = [r.detection["images"] for r in repeats]
        columns |= {f"detection {k}": [{n: s[k] for n, s in i.items()} for i in own]
                    for k in ("f1", "precision", "recall")}  # fmt: skip
    if all(method in r.segmentation.get("images", {}) for r in repeats):
        own = [r.segmentation["images"][method] for r in repeats]
        columns |= {k: [{n: s[k] for n, s in i.items()} for i in own] for k in SHOWN}
    names = list(dict.fromkeys(n for c in columns.values() for n in c[0]))
    if not names:
        return None
    rows = [
        [name, *(f"{mean(i[name] for i in c):.3f}" if all(name in i for i in c) else ""
                 for c in columns.values())]
        for name in names
    ]  # fmt: skip
    text = "Means over the repeats. " if len(repeats) > 1 else ""
    text += f"Segmentation with instances by {method}. " if method else ""
    text += "A click on a column's head sorts by it."
    return Section("Test images", text, [Table(["image", *columns], rows, sortable=True)])


def area_section(folder: Path) -> Section | None:
    """Areas of the predicted nuclei against those of the true ones."""
    path = folder / "segmentation" / "pictures" / "areas.json"
    if not path.is_file():
        return None
    areas = {k: np.array(v, float) for k, v in read_json(path).items()}
    if not all(len(v) for v in areas.values()):
        return None
    top = max(np.percentile(v, 99) for v in areas.values())
    edges = np.linspace(0, top, 31)
    series = []
    for name, own in areas.items():
        share = np.histogram(np.minimum(own, top), edges)[0] / len(own)
        x, y = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)
        series.append(Series(name, x.tolist(), y.tolist(), marked=False, filled=True))
    rows = [[name, str(len(v)), f"{v.mean():.0f}", *(f"{np.percentile(v, q):.0f}"
             for q in (5, 50, 95))] for name, v in areas.items()]  # fmt: skip
    return Section(
        "Nucleus areas",
        "All nuclei of the test images; the largest percent is in the last bar.",
        [Table(["nuclei", "number", "mean px²", "5 %", "median", "95 %"], rows)],
        [Chart("Nucleus areas", "area in square pixels", "share of nuclei", series,
               from_zero=True)],
    )  # fmt: skip


def label_words(label: str) -> dict[str, str]:
    """What the shares in a file of label errors are, for a label of that name."""
    wrong = f"{label}: wrong among the labelled pixels"
    return {
        "edge_on_nuclei": "Voronoi edges that lie on nuclei",
        "cluster_wrong": wrong,
        "wrong": wrong,
        "nucleus_wrong": f"{label}: wrong among the nucleus pixels",
        "background_wrong": f"{label}: wrong among the background pixels",
        "nuclei_found": f"true nucleus pixels that the {label} says are",
        "ignored": f"pixels without a {label}",
    }


def label_section(folder: Path) -> Section | None:
    """How wrong the labels of stage 2 are."""
    rows = []
    for file, label in (
        ("label_errors.json", "cluster label"),
        ("mask_label_errors.json", "mask label"),
    ):
        path = folder / "segmentation" / file
        if path.is_file():
            words = label_words(label)
            means = read_json(path)["mean_train"]
            rows += [[words.get(k, k), f"{v:.1%}"] for k, v in means.items()]
    if not rows:
        return None
    text = "Against the masks of the training images, which training does not see."
    return Section("Label errors", text, [Table(["share", ""], rows)])


def time_section(repeats: Sequence[Repeat]) -> Section:
    """Seconds of each step, a column for each repeat."""
    seconds: dict[str, list[str]] = {}
    for k, repeat in enumerate(repeats):
        for name, took in repeat.steps().items():
            seconds.setdefault(name, [""] * len(repeats))[k] = f"{took:.1f} s"
    rows = [[name, *row] for name, row in seconds.items()]
    rows.append(["all steps", *(f"{r.seconds():.1f} s" for r in repeats)])
    return Section("Time", tables=[Table(["step", *(r.folder.name for r in repeats)], rows)])


def option_section(repeat: Repeat) -> Section:
    """Every option of both stages."""
    stages = [s for s in STAGES if s in repeat.options]
    values = [repeat.options[s]["options"] for s in stages]
    names = list(dict.fromkeys(n for own in values for n in own))
    rows = [[n, *(str(own.get(n, "")) for own in values)] for n in names]
    return Section("All options", tables=[Table(["option", *stages], rows)], folded=True)


def make_sections(repeats: Sequence[Repeat]) -> list[Section]:
    """The report of an experiment; pictures, curves and labels are those of the first repeat."""
    folder = repeats[0].folder
    albums = {s: read_album(folder / s / "pictures") for s in STAGES}
    first = f" (of {folder.name})" if len(repeats) > 1 else ""
    charts = curves(folder)
    sections = [
        score_section(repeats),
        run_section(repeats),
        Section("Curves", f"Rules mark new rounds and where the CRF starts{first}.", charts=charts)
        if charts else None,
        image_section(repeats),
        Section("Results", first.strip(" ()"),
                figures=[f for f in albums["segmentation"] if f.name in ("results", "methods")]),
        area_section(folder),
        Section("Stage 1, detection", first.strip(" ()"), figures=albums["detection"]),
        Section("Stage 2, labels and crops", first.strip(" ()"),
                figures=[f for f in albums["segmentation"] if f.name in ("labels", "batch")]),
        label_section(folder),
        time_section(repeats),
        option_section(repeats[0]),
    ]  # fmt: skip
    shown = [s for s in sections if s]
    return [s for s in shown if s.text or s.tables or s.charts or s.figures]


def overview(folder: Path) -> np.ndarray | None:
    """One strip: points, Voronoi and cluster label, detections, nuclei; None without them all."""
    figures: dict[str, Figure] = {
        f"{s}/{f.name}": f for s in STAGES for f in read_album(folder / s / "pictures")
    }
    wanted = [("segmentation/labels", k) for k in range(3)]
    wanted += [("detection/rounds", -1), ("segmentation/methods", -1)]
    if not all(name in figures for name, _ in wanted):
        return None
    panels = [figures[name].panels[k] for name, k in wanted]
    words = ("points", "Voronoi label", "cluster label", "probability and detections", "nuclei")
    return strip([type(p)(w, p.image) for p, w in zip(panels, words, strict=True)], OVERVIEW_HEIGHT)
