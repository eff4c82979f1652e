"""The card of a packed run, and export_model.py, which writes it."""

import pytest

from code_common.errors import InputError
from code_common.files.writing import write_json
from code_common.reporting.card import make_card
from tools import export_model

PACKED = {
    "detection": {"card": {"dataset": "A", "annotated_points": 12, "width": 0.25}},
    "segmentation": {"card": {"dataset": "A", "width": 0.25, "commit": None}},
}
SCORED = {
    "mean": {"aji": 0.5, "pq": 0.25, "other": 1.0},
    "interval": {"aji": [0.4, 0.6]},
    "patients": 3,
    "images": {"T1": {}, "T2": {}},
}


def test_a_card_tells_training_and_scores():
    card = make_card("# Title\n\nabout\n", PACKED, {"held-out patients": SCORED})
    lines = card.splitlines()
    assert lines[0] == "# Title" and "about" in lines
    assert "| data set | A | A |" in lines and "| width | 0.25 | 0.25 |" in lines
    assert "| annotated points in them | 12 |  |" in lines
    assert "| images | tiles | patients | AJI | PQ | pixel F1 | detection F1 |" in lines
    assert "| held-out patients | 2 | 3 | 0.500 [0.400, 0.600] | 0.250 |  |  |" in lines


def test_a_card_of_one_stage_without_scores():
    card = make_card("# Title", {"segmentation": PACKED["segmentation"]}, {})
    assert "|  | segmentation |" in card and "Scores" not in card


def export(*words):
    export_model.main(export_model.parse_arguments(list(map(str, words))))


def test_export_writes_the_card_of_a_run(experiment, tmp_path):
    write_json(tmp_path / "metrics.json", SCORED)
    (tmp_path / "about.md").write_text("# My model\n\nOf my tiles.\n")
    run, card = experiment.root / "repeat_1", tmp_path / "m.md"
    given = ["--run", run, "--out", tmp_path / "m.pt", "--card", card]
    export(*given, "--about", tmp_path / "about.md", "--scores", f"mine=1={tmp_path}/metrics.json")
    text = card.read_text()
    assert text.startswith("# My model") and "| mine=1 | 2 | 3 | 0.500" in text
    assert "| training images | 2 |  |" in text and "| encoder | resnet18 | resnet18 |" in text
    export(*given[:2], "--card", card)
    assert card.read_text().startswith("# repeat_1\n")


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ("metrics.json", "expected NAME=FILE"),
        ("mine=no.json", r"no\.json: no such file"),
        ("mine=x.json", r"x\.json: expected"),
    ],
)
def test_scores_of_another_form_are_refused(experiment, tmp_path, monkeypatch, scores, said):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "x.json", {"mean": 1})
    run = experiment.root / "repeat_1"
    with pytest.raises(InputError, match=said):
        export("--run", run, "--out", "m.pt", "--card", "m.md", "--scores", scores)
    assert not (tmp_path / "m.pt").exists() and not (tmp_path / "m.md").exists()
