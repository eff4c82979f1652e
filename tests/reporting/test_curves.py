"""Logs become training curves."""

import numpy as np
import pytest

from code_common.files.writing import write_table
from code_common.reporting.curves import curves, read_logs


def by_title(folder):
    return {chart.title: chart for chart in curves(folder)}


def names(chart):
    return {series.name for series in chart.series}


def test_curves_go_on_from_round_to_round(experiment):
    loss = by_title(experiment.root / "repeat_1")["detection: training loss"]
    assert list(loss.series[0].x) == [1, 2] and loss.rules == [(1.5, "round 1")]


def test_curves_of_stage_2_mark_the_crf(experiment):
    charts = by_title(experiment.root / "repeat_1")
    loss = charts["segmentation: training loss"]
    assert names(loss) == {"voronoi", "cluster", "crf", "loss"}
    assert loss.rules == [(1.5, "CRF starts")]
    validation = charts["segmentation: validation"]
    assert names(validation) == {"aji_components", "aji_points", "aji_convex"}


@pytest.mark.parametrize("folder", ["self_training", "masks"])
def test_curves_mark_the_second_network_also_of_older_runs(tmp_path, folder):
    """Older versions called its folder 'masks'."""
    for name in ("labels", folder):
        log = tmp_path / "segmentation" / name / "log.csv"
        write_table(log, ["epoch", "loss"], [[1, 0.5], [2, 0.4]])
    (loss,) = curves(tmp_path)
    assert loss.rules == [(2.5, "second network")]
    assert list(loss.series[0].y) == [0.5, 0.4, 0.5, 0.4]


def test_logs_of_other_columns_are_joined(tmp_path):
    logs = {"labels.csv": ["epoch", "loss"], "crf.csv": ["epoch", "crf", "loss"]}
    for name, header in logs.items():
        write_table(tmp_path / name, header, [range(len(header))])
    columns, starts = read_logs([tmp_path / name for name in logs])
    assert starts == [0, 1] and columns["loss"] == [1, 2]
    assert np.isnan(columns["crf"][0]) and columns["crf"][1] == 1
