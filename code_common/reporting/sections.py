"""The sections of an experiment's report: scores, what ran, curves, pictures, times, options."""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from statistics import mean

import numpy as np

from code_common.files.reading import read_json, read_table
from code_common.files.run_folder import (
    STAGES,
    all_points_paths,
    areas_path,
    label_errors_path,
    pictures_folder,
)
from code_common.old_runs import present
from code_common.reporting.album import read_album
from code_common.reporting.charts import Chart, Series
from code_common.reporting.curves import curves
from code_common.reporting.page import Section, Table
from code_common.reporting.results import (
    SHOWN,
    Repeat,
    Scores,
    scores_by_column,
    scores_of,
    spread,
    with_interval,
)

LENGTHS = ("mean_distance", "std_distance", "object_hausdorff")  # in pixels, not 0..1
AREA_BARS = 30


def make_sections(repeats: Sequence[Repeat], notes: Sequence[str] = ()) -> list[Section]:
    """The report of an experiment. Curves, pictures, areas, labels and options are those of the
    first repeat, and say so.

    notes: lines that say what is odd about the repeats.
    """
    folder = repeats[0].folder
    source = f"of {folder.name}" if len(repeats) > 1 else ""
    sections = [
        score_section(repeats),
        run_section(repeats, notes),
        curve_section(folder, source),
        image_section(repeats),
        picture_section("Results", folder / "segmentation", source, ("results", "methods")),
        area_section(folder / "segmentation", source),
        picture_section("Stage 1, detection", folder / "detection", source),
        picture_section(
            "Stage 2, labels and crops", folder / "segmentation", source, ("labels", "batch")
        ),
        label_section(folder / "segmentation", source),
        time_section(repeats),
        option_section(repeats[0], source),
    ]
    return [section for section in sections if section is not None]


def score_section(repeats: Sequence[Repeat]) -> Section:
    """Scores on the test images: with intervals for one repeat, with deviations for several."""
    scores = scores_by_column(repeats)
    if not scores:
        return Section("Scores", "No test image has labels to score against.")
    detection = {column: s for column, s in scores.items() if column == "detection"}
    methods = {column: s for column, s in scores.items() if column != "detection"}
    tables = [score_table(group, len(repeats)) for group in (detection, methods) if group]
    if len(repeats) > 1:
        tables.append(repeat_table(repeats, list(scores)))
    return Section("Scores", score_text(repeats, scores), tables)


def score_table(scores: dict[str, list[Scores]], repeats: int) -> Table:
    """A row for each score. scores: column -> those of the repeats that have it."""
    names = next(iter(scores.values()))[0].values
    rows = [[name, *(score_cell(name, s, repeats) for s in scores.values())] for name in names]
    return Table(["score", *scores], rows)


def score_cell(name: str, scores: Sequence[Scores], repeats: int) -> str:
    """A score of one repeat with its interval, or of several with their deviation."""
    digits = 2 if name in LENGTHS else 3
    if repeats > 1:
        return spread([s.values[name] for s in scores], digits, of=repeats)
    return with_interval(scores[0].values[name], scores[0].intervals.get(name), digits)


def repeat_table(repeats: Sequence[Repeat], columns: Sequence[str]) -> Table:
    """The main scores of each repeat with their intervals."""
    main = []
    for column in columns:
        names = ("f1",) if column == "detection" else ("aji", "pq")
        main += [(column, name) for name in names]
    rows = []
    for repeat in repeats:
        cells, scores = [], scores_of(repeat)
        for column, name in main:
            values, intervals = scores.get(column, ({}, {}))
            cells.append(with_interval(values[name], intervals.get(name)) if values else "")
        rows.append([repeat.folder.name, *cells])
    return Table(["repeat", *(f"{column}: {name}" for column, name in main)], rows)


def score_text(repeats: Sequence[Repeat], scores: dict[str, list[Scores]]) -> str:
    """How to read the tables of scores."""
    has_segmentation = any(column != "detection" for column in scores)
    every = [*(r.segmentation for r in repeats), *(r.detection for r in repeats)]
    metrics = next(metrics for metrics in every if metrics)
    by_image = metrics["images"]  # of a segmentation: by instance method, then by image
    images = len(next(iter(by_image.values()), {}) if has_segmentation else by_image)
    patients = metrics.get("patients", images)
    text = f"{images} test images" + (f" of {patients} patients" if patients < images else "")
    text += (
        ". Detection scores are pooled over the images. Segmentation scores are means over them, "
        "with instances by connected components, split at the detected points, and as convex "
        "nuclei; those of the nuclei's centres, scored as detections, are pooled. "
    )
    if len(repeats) > 1:
        text += f"Mean ± standard deviation over {len(repeats)} repeats. "
    if any(s.intervals for column in scores.values() for s in column):
        text += (
            "In brackets: 95 % bootstrap interval over images, by patient where the names tell "
            "the patient. "
        )
    if has_segmentation:
        chosen = ", ".join(sorted({repeat.method for repeat in repeats if repeat.method}))
        text += f"The validation images chose the instances by: {chosen}."
    return text


def run_section(repeats: Sequence[Repeat], notes: Sequence[str] = ()) -> Section:
    """What was trained on which data, with which code and on which machine."""
    first, rows = repeats[0], []
    for stage in STAGES:
        saved = next((r.saved[stage] for r in repeats if stage in r.saved), None)
        if saved is None:
            continue
        options = saved["options"]
        if not rows:
            stage_1 = options.get("detection_results_dir") or first.folder / "detection"
            points = annotated(Path(stage_1), options["ratio"])
            seed = f"{options['random_seed']}"
            if len(repeats) > 1:
                seed += f"; {len(repeats)} repeats, each with other points and other first weights"
            folder = options.get("data_dir", "unknown folder")
            rows.append(["data set", f"{options['dataset']} ({folder})"])
            rows.append(["annotated nuclei", points])
            rows.append(["random seed", seed])
        rows.append([stage, training_words(stage, saved)])
        made = dict.fromkeys(code_words(r.saved[stage]) for r in repeats if stage in r.saved)
        rows.append([f"{stage}: code and machine", " | ".join(made)])
    rows += [["note", note] for note in notes]
    return Section("What ran", tables=[Table(["", ""], rows, words=True)])


def code_words(saved: dict) -> str:
    """The code and the machine that made a stage. saved: its options.json."""
    machine = ", ".join(f"{k} {v}" for k, v in saved.get("machine", {}).items())
    return f"commit {saved.get('commit', 'unknown')}; {machine}"


def annotated(folder: Path, ratio: float) -> str:
    """How many points are annotated in how many training images. folder: run folder of stage 1."""
    tables = [read_table(path, "row") for path in all_points_paths(folder)]
    points = sum(len(table["row"]) for table in tables)
    share = "all points given" if ratio == 1 else f"{100 * ratio:g}% of each training image"
    number = f"{points} points in {len(tables)} images" if tables else "their number is not known"
    return f"{share}; {number}"


def training_words(stage: str, saved: dict) -> str:
    """The network of a stage and how it was trained. saved: the stage's options.json."""
    options = saved["options"]
    weights = saved.get("pretrained_loaded") or options["pretrained"]
    epochs = f"{options['epochs']} epochs"
    if stage == "detection":
        rounds = options["rounds"] + 1
        epochs = f"{rounds} round{'s' if rounds > 1 else ''} of {epochs}"
    else:
        if options["self_training_epochs"]:
            second = options["self_training_epochs"]
            epochs += f", {second} of a second network on the first one's nuclei"
        if options["crf_epochs"]:
            epochs += f", {options['crf_epochs']} with the dense CRF loss"
            if saved.get("crf_backend_used"):
                epochs += f" ({saved['crf_backend_used']})"
    parts = options.get("batch_parts") or 1
    in_parts = f" in {parts} parts" if parts > 1 else ""
    precision = f", {saved['precision_used']}" if saved.get("precision_used") else ""
    return (
        f"{options['model']}, first weights: {weights}; {epochs}; "
        f"batches of {options['batch_size']}{in_parts}, lr {options['lr']:g}{precision}"
    )


def curve_section(folder: Path, source: str) -> Section | None:
    """Training curves of a repeat; `source` says of which one."""
    charts = curves(folder)
    if not charts:
        return None
    text = _of("Rules mark new rounds and where the CRF starts", source)
    return Section("Curves", text, charts=charts)


def _of(sentence: str, source: str) -> str:
    """A sentence, with the repeat that it is about, where there are several."""
    return sentence + (f" ({source})." if source else ".")


def image_section(repeats: Sequence[Repeat]) -> Section | None:
    """A row for each test image: means over the repeats."""
    method = next((repeat.method for repeat in repeats if repeat.method), "")
    columns: dict[str, dict[str, float]] = {}
    if images := [repeat.detection["images"] for repeat in repeats if repeat.detection]:
        for score in ("f1", "precision", "recall"):
            columns[f"detection {score}"] = mean_by_image(images, score)
    scored = [repeat.segmentation.get("images", {}) for repeat in repeats]
    if images := [by_method[method] for by_method in scored if method in by_method]:
        columns |= {score: mean_by_image(images, score) for score in SHOWN}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    if not names:
        return None
    rows = [
        [name, *(with_interval(c.get(name, nan), None) for c in columns.values())] for name in names
    ]
    text = "Means over the repeats. " if len(repeats) > 1 else ""
    text += f"Segmentation with instances by {method}. " if method else ""
    text += "Click a column's head to sort by it."
    return Section("Test images", text, [Table(["image", *columns], rows, sortable=True)])


def mean_by_image(repeats: Sequence[dict[str, dict[str, float]]], score: str) -> dict[str, float]:
    """Mean over the repeats of a score, for the images that all of them scored.

    repeats: for each, image -> scores.
    """
    names = [name for name in repeats[0] if all(name in images for images in repeats)]
    return {name: mean(images[name][score] for images in repeats) for name in names}


def picture_section(
    title: str, folder: Path, source: str, names: Sequence[str] | None = None
) -> Section | None:
    """Figures of a stage by name, or all of them. folder: the stage's run folder."""
    album = read_album(pictures_folder(folder))
    figures = [figure for figure in album if names is None or figure.name in names]
    return Section(title, source, figures=figures) if figures else None


def area_section(folder: Path, source: str = "") -> Section | None:
    """Areas of the predicted nuclei and of the true ones. folder: run folder of stage 2; source:
    which repeat that is.
    """
    path = areas_path(folder)
    if not path.is_file():
        return None
    areas = {n: np.array(values, float) for n, values in read_json(path, {str: [float]}).items()}
    if not areas or not all(len(values) for values in areas.values()):
        return None
    rows = []
    for name, values in areas.items():
        percentiles = [f"{np.percentile(values, percent):.0f}" for percent in (5, 50, 95)]
        rows.append([name, str(len(values)), f"{values.mean():.0f}", *percentiles])
    return Section(
        "Nucleus areas",
        _of(
            "All nuclei of the test images. The last bar also holds the largest one percent", source
        ),
        [Table(["nuclei", "number", "mean px²", "5 %", "median", "95 %"], rows)],
        [area_chart(areas)],
    )


def area_chart(areas: dict[str, np.ndarray]) -> Chart:
    """Histograms of areas in square pixels by the name of their nuclei."""
    largest = max(np.percentile(values, 99) for values in areas.values())
    edges = np.linspace(0, largest, AREA_BARS + 1)
    series = []
    for name, values in areas.items():
        share = np.histogram(np.minimum(values, largest), edges)[0] / len(values)
        x, y = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)  # the outline of the bars
        series.append(Series(name, x.tolist(), y.tolist(), marked=False, filled=True))
    return Chart(
        "Nucleus areas", "area in square pixels", "share of nuclei", series, from_zero=True
    )


def label_section(folder: Path, source: str = "") -> Section | None:
    """How wrong the labels of stage 2 are. folder: its run folder; source: of which repeat."""
    rows = []
    for made_by, label in (("", "cluster label"), ("self_training", "self-training label")):
        path = present(folder, label_errors_path(folder, made_by).name)
        if path.is_file():
            words = label_words(label)
            shares = read_json(path, {"mean_train": {str: float}})["mean_train"]
            rows += [[words.get(name, name), f"{share:.1%}"] for name, share in shares.items()]
    if not rows:
        return None
    text = _of(
        "Compared with the masks of the training images, which training does not see", source
    )
    return Section("Label errors", text, [Table(["share", ""], rows)])


def label_words(label: str) -> dict[str, str]:
    """What the shares in a file of label errors are, for a label of that name."""
    wrong = f"{label}: wrong among the labelled pixels"
    return {
        "edge_on_nuclei": "Voronoi edges that lie on nuclei",
        "cluster_wrong": wrong,
        "wrong": wrong,
        "nucleus_wrong": f"{label}: wrong among the nucleus pixels",
        "background_wrong": f"{label}: wrong among the background pixels",
        "nuclei_found": f"true nucleus pixels that the {label} marks as nucleus",
        "ignored": f"pixels without a {label}",
    }


def time_section(repeats: Sequence[Repeat]) -> Section:
    """Seconds of each step, a column for each repeat."""
    seconds: dict[str, list[str]] = {}
    for number, repeat in enumerate(repeats):
        for step, value in repeat.steps().items():
            seconds.setdefault(step, [""] * len(repeats))[number] = f"{value:.1f} s"
    rows = [[step, *row] for step, row in seconds.items()]
    rows.append(["all steps", *(f"{repeat.seconds():.1f} s" for repeat in repeats)])
    return Section("Time", tables=[Table(["step", *(r.folder.name for r in repeats)], rows)])


def option_section(repeat: Repeat, source: str) -> Section:
    """Every option of both stages. source: of which repeat."""
    stages = [stage for stage in STAGES if stage in repeat.saved]
    options = [repeat.saved[stage]["options"] for stage in stages]
    names = list(dict.fromkeys(name for by_name in options for name in by_name))
    rows = [[name, *(str(by_name.get(name, "")) for by_name in options)] for name in names]
    return Section("All options", source, [Table(["option", *stages], rows)], folded=True)
