"""The card of a packed run, and export_model.py, which writes it."""

import re

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


def test_a_bar_in_a_name_stays_in_its_cell():
    assert "| a\\|b | 2 | 3 | 0.500" in make_card("# Title", PACKED, {"a|b": SCORED})


def test_of_the_scores_of_a_run_the_main_ones_are_printed(experiment, tmp_path, capsys):
    export("--run", experiment.root / "repeat_1")
    printed = capsys.readouterr().out
    assert "segmentation test: components (pixel_f1 0." in printed
    assert "detection test: f1 0" in printed and "{" not in printed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--run m.pt --card m.pt", "--card m.pt: is --run, too"),
        ("--run m.pt --card ./../here/a.md --about a.md", "a.md: is --about, too"),
        ("--run m.pt --card s.json --scores a=s.json", "--card s.json: is --scores a, too"),
        ("--run m.pt --card n.pt --out ../here/n.pt", "--card n.pt: is --out, too"),
        ("--run m.pt --card n.md --about latin.md", "latin.md: not a readable text file"),
        ("--run m.pt --about a.md", "--about is for --card"),
        ("--run m.pt --scores a=s.json", "--scores is for --card"),
    ],
)
def test_no_file_is_lost(experiment, tmp_path, monkeypatch, given, said):
    """A card in place of the model that was read, say."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    export("--run", experiment.root / "repeat_1", "--out", "m.pt")
    (here / "a.md").write_text("# A")
    (here / "latin.md").write_bytes("# Gewebe f\xfcr".encode("latin-1"))
    write_json(here / "s.json", SCORED)
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    with pytest.raises(InputError, match=re.escape(said)):
        export(*given.split())
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ("metrics.json", "expected NAME=FILE"),
        ("mine=no.json", r"no\.json: no such file"),
        ("mine=x.json", r"x\.json: expected"),
        ("mine=y.json", r"y\.json: expected"),
        ("a=y.json a=x.json", "a stands there twice"),
    ],
)
def test_scores_of_another_form_are_refused(experiment, tmp_path, monkeypatch, scores, said):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "x.json", {"mean": 1})
    write_json(tmp_path / "y.json", {**SCORED, "interval": {"aji": [0.4]}})
    run = experiment.root / "repeat_1"
    with pytest.raises(InputError, match=said):
        export("--run", run, "--out", "m.pt", "--card", "m.md", "--scores", *scores.split())
    assert not (tmp_path / "m.pt").exists() and not (tmp_path / "m.md").exists()
