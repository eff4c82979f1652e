"""The training curves of a run: loss and validation scores by epoch, from its logs."""

import math
from collections.abc import Iterable
from pathlib import Path

from code_common.files.reading import read_table
from code_common.files.run_folder import log_path, round_folders
from code_common.old_runs import present
from code_common.reporting.charts import Chart, Series

# The columns of log.csv, beside the validation scores, that are no term of the loss.
NOT_A_TERM = ("epoch", "seconds", "images_per_s", "data_share", "forward_share", "backward_share")
# The phases of stage 2 in order, and the word beside the rule where one begins.
PHASES = {"labels": "", "self_training": "second network", "crf": "CRF starts"}


def curves(folder: Path) -> list[Chart]:
    """Charts of both stages. folder: that of a repeat."""
    rounds = round_folders(folder / "detection")
    detection = {f"round {k}": log_path(training) for k, training in enumerate(rounds)}
    segmentation = {
        word: log_path(present(folder / "segmentation", phase)) for phase, word in PHASES.items()
    }
    return [
        *stage_curves("detection", detection),
        *stage_curves("segmentation", segmentation),
    ]


def stage_curves(stage: str, logs: dict[str, Path]) -> list[Chart]:
    """The loss, and the validation scores where there are some, of a stage's trainings in order.

    logs: what begins with a training -> its log.csv, which need not be there.
    """
    logs = {word: path for word, path in logs.items() if path.is_file()}
    if not logs:
        return []
    columns, starts = read_logs(logs.values())
    epochs = list(range(1, len(columns["epoch"]) + 1))
    rules = [(row + 0.5, word) for row, word in zip(starts, logs, strict=True) if row]
    terms = [name for name in columns if name not in NOT_A_TERM and not name.startswith("val_")]
    if len(terms) <= 2:
        terms = ["loss"]  # of one term, which is the loss itself
    series = [Series(term, epochs, columns[term], marked=False) for term in terms]
    title = f"{stage}: training loss"
    charts = [Chart(title, "epoch", "loss", series, rules, from_zero=True)]
    scores = [name for name in columns if name.startswith("val_") and name != "val_score"]
    if scores:
        series = [Series(name.removeprefix("val_"), epochs, columns[name]) for name in scores]
        charts.append(Chart(f"{stage}: validation", "epoch", "validation score", series, rules))
    return charts


def read_logs(paths: Iterable[Path]) -> tuple[dict[str, list[float]], list[int]]:
    """The columns of several log.csv, one log after the other, and the row that each begins at.

    A column is NaN in the rows of a log that lacks it.
    """
    tables = [read_table(path, "epoch", "loss") for path in paths]
    names = list(dict.fromkeys(name for table in tables for name in table))
    columns: dict[str, list[float]] = {name: [] for name in names}
    starts = []
    for table in tables:
        starts.append(len(columns["epoch"]))
        length = len(table["epoch"])
        for name in names:
            columns[name] += table[name].tolist() if name in table else [math.nan] * length
    return columns, starts
