"""Oracles: what true masks and true points would give."""

import numpy as np
from conftest import both_stages, digest, taken_by

from code_common.config import parse
from code_common.files.reading import read_json
from code_seg.evaluate import make_instances
from code_seg.labels import NUCLEUS
from code_seg.metrics import aji, overlaps
from code_seg.options import Options, OracleOptions
from code_seg.oracles import combinations, oracles, true_points


def two_touching_disks():
    y, x = np.mgrid[:60, :90]
    truth = np.zeros((60, 90), np.int32)
    truth[(y - 30) ** 2 + (x - 30) ** 2 <= 15**2] = 4
    truth[((y - 30) ** 2 + (x - 58) ** 2 <= 15**2) & (truth == 0)] = 9
    return truth


def test_true_points_are_the_innermost_pixels():
    truth = two_touching_disks()
    points = true_points(truth)
    assert truth[tuple(points.T)].tolist() == [4, 9]
    assert np.abs(points - [[30, 30], [30, 59]]).max() <= 3
    crescent = np.zeros((20, 20), np.int32)
    crescent[2:18, 2:5] = crescent[2:5, 2:18] = 1
    assert crescent[tuple(true_points(crescent)[0])] == 1


def test_each_oracle_mends_its_part():
    """Touching nuclei: the mask alone is not enough, a missed point merges, true points part."""
    truth = two_touching_disks()
    prob = (truth > 0).astype(np.float32)
    clusters = dict.fromkeys(("detected points", "true points"), np.full(truth.shape, NUCLEUS))
    detected = np.array([[30, 30]])
    maps = combinations(prob, detected, truth, clusters, 20)
    scores = {name: aji(overlaps(truth, instances)) for name, instances in maps.items()}
    assert scores["true mask, components"] == scores["true mask, detected points"] < 0.6
    assert scores["true mask, true points"] > 0.97
    assert scores["our mask, true points"] == scores["true mask, true points"]
    assert len(np.unique(maps["no network, cluster label of true points"])) == 2  # the two cells


def test_the_script_scores_a_finished_run(finished, tmp_path):
    folder = finished / "segmentation"
    before = digest(finished)
    given = taken_by(OracleOptions, Options, list(map(str, both_stages(tmp_path)[1])))
    message = oracles(parse(OracleOptions, "", given))
    assert "1 val image " in message and "true mask, true points" in message
    scores = read_json(folder / "oracles.json")["scores"]
    chosen = read_json(folder / "selection.json")["val_aji"]
    for method, name in (("components", "components"), ("points", "detected points")):
        assert abs(scores[f"our mask, {name}"]["aji"] - chosen[method]) < 1e-9
    assert scores["true mask, true points"]["aji"] == 1  # the disks do not touch
    (folder / "oracles.json").unlink()
    assert digest(finished) == before  # nothing else is written


def test_without_points_there_are_components_alone():
    assert set(make_instances(np.zeros((9, 9)), None, 5)) == {"components"}
