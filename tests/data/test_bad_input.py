"""Broken inputs at every entry point: one line, status 2, no traceback, nothing half written."""

import importlib
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import ACTION, RUN, both_stages, flags, run_here

from code_common.config import read_command_line
from code_common.errors import run_script
from code_common.files.writing import write_json, write_png
from code_common.launch import together
from code_common.learning.checkpoints import save_network
from code_common.learning.network import ResUNet
from data.check import main as check
from data.check import read_arguments

D, S = "detection", "segmentation"
PACKAGE = {D: "code_detection", S: "code_seg"}


def start(stage: str, script: str, *more: str) -> None:
    """A script of a stage, as its __main__ does it, in the present folder."""
    arguments = dict(zip((D, S), both_stages(Path()), strict=True))[stage]
    run_script(lambda: run_here(PACKAGE[stage], script, *arguments, *more))


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """The present folder: a data set and a finished run. Files are links, so damage replaces."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def new(folder):
    """The same before the run began."""
    shutil.rmtree("out")
    return folder


def put(path: str | Path, content: object) -> None:
    """Replace a file: bytes, text, an array, a JSON value, or None for none."""
    path = Path(path)
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, np.ndarray):
        tifffile.imwrite(path, content) if path.suffix == ".tif" else write_png(path, content)
    elif content is not None:
        write_json(path, content)


def cut(path: str) -> None:
    put(path, Path(path).read_bytes()[:120])


def make_folder(path: str) -> None:
    Path(path).unlink()
    Path(path).mkdir()


IMAGE, LABEL = "data/tiny/images/train1.png", "data/tiny/labels_instance/train1_label.tif"
SPLIT = "data/tiny/train_val_test.json"
BINARY = np.zeros((64, 64), np.int32)
BINARY[5:9, 5:9] = BINARY[30:40, 30:40] = 255


class Code:
    """Runs a command where it is unpickled."""

    def __reduce__(self):
        return (os.system, ("echo run > run.txt",))


def pickled(path: str) -> None:
    put(path, pickle.dumps({"network": Code()}))


def save(path: str, content: object) -> None:
    Path(path).unlink(missing_ok=True)
    torch.save(content, path)


def other_network(path: str) -> None:
    """A checkpoint that says it is of another network than its weights are."""
    save(path, {**save_network(ResUNet("resnet18", 1)), "model": "resnet34"})


# name, damage, what the line names
DATA = [
    ("no folder", lambda: shutil.rmtree("data/tiny"), "data/tiny"),
    ("no split", lambda: put(SPLIT, None), "train_val_test.json"),
    ("split is no JSON", lambda: put(SPLIT, "{"), "train_val_test.json"),
    ("split is no text", lambda: put(SPLIT, b"\xff\xfe\x00\x81"), "train_val_test.json"),
    ("split is a list", lambda: put(SPLIT, ["train0.png"]), "train_val_test.json"),
    ("sets are no lists", lambda: put(SPLIT, {"train": "train0.png"}), "train_val_test.json"),
    ("names are numbers", lambda: put(SPLIT, {"train": [1, 2]}), "train_val_test.json"),
    ("no training images", lambda: put(SPLIT, {"train": []}), "train_val_test.json"),
    ("one name twice", lambda: put(SPLIT, {"train": ["train0.png"] * 2}), "train0.png"),
    ("in two sets", lambda: put(SPLIT, {"train": ["train0.png"], "val": ["train0"]}), "train0"),
    ("a path for a name", lambda: put(SPLIT, {"train": ["../x.png"]}), "../x.png"),
    ("an absolute path", lambda: put(SPLIT, {"train": ["/etc/x.png"]}), "/etc/x.png"),
    ("an empty name", lambda: put(SPLIT, {"train": [""]}), "image name ''"),
    ("no such image", lambda: put(IMAGE, None), "train1.png"),
    ("image truncated", lambda: cut(IMAGE), "train1.png"),
    ("image is text", lambda: put(IMAGE, "no image"), "train1.png"),
    ("image is empty", lambda: put(IMAGE, b""), "train1.png"),
    ("image is a folder", lambda: make_folder(IMAGE), "train1.png"),
    ("two images of one name", lambda: (put(IMAGE[:-3] + "bmp", Path(IMAGE).read_bytes()),
                                        put(SPLIT, {"train": ["train1"]})), "train1"),
    ("image of numbers", lambda: (put(IMAGE, None), put(IMAGE[:-3] + "tif",
                                  np.full((64, 64), 1e4, np.float32))), "train1.tif"),
    ("no label", lambda: put(LABEL, None), "train1.png"),
    ("label truncated", lambda: cut(LABEL), "train1_label.tif"),
    ("label of another size", lambda: put(LABEL, np.ones((32, 64), np.int32)), "train1_label.tif"),
    ("label of one value", lambda: put(LABEL, BINARY), "binary mask"),
    ("label in colour", lambda: (put(LABEL, None), put(LABEL[:-3] + "png", np.arange(
        64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))), "train1_label.png"),
    ("negative ids", lambda: put(LABEL, np.full((64, 64), -3, np.int32)), "negative ids"),
    ("label of fractions", lambda: put(LABEL, np.full((64, 64), 0.5, np.float32)), "train1_label"),
    ("no nucleus", lambda: put(LABEL, np.zeros((64, 64), np.int32)), "train1.png"),
]  # fmt: skip

DETECTION, SEG = f"out/{RUN}/detection", f"out/{RUN}/segmentation"
ROUND, CHOSEN = f"{DETECTION}/round_0", f"{DETECTION}/round_1"  # the run chose the last one
POINTS = f"{DETECTION}/points/train0.csv"
DETECTIONS = f"{DETECTION}/detections/train0_points.csv"
RUNS = [  # stage, script, more options, name, damage, what the line names
    (D, "train", "", "no colours", lambda: put(f"{DETECTION}/colours.json", None), "colours.json"),
    (D, "train", "", "colours broken", lambda: put(f"{DETECTION}/colours.json", "{"), "colours"),
    (D, "train", "", "colours of two", lambda: put(f"{DETECTION}/colours.json", {"mean": [1, 2]}),
     "colours.json"),
    (D, "train", "", "no points", lambda: put(POINTS, None), "train0.csv"),
    (D, "train", "", "words for points", lambda: put(POINTS, "row,col\na,b\n"), "train0.csv"),
    (D, "train", "", "points outside", lambda: put(POINTS, "row,col\n5,900\n"), "outside"),
    (D, "train", "", "points not finite", lambda: put(POINTS, "row,col\nnan,inf\n"), "train0.csv"),
    (D, "train", "--round 1", "no background", lambda: shutil.rmtree(
        f"{DETECTION}/round_1/background"), "background/train0.png"),
    (D, "train", "--pretrained no.pt", "no weights", lambda: None, "no.pt"),
    (D, "train", "--pretrained w.pt", "weights that run code", lambda: pickled("w.pt"), "w.pt"),
    (D, "train", "--pretrained w.pt", "weights of nothing", lambda: save(
        "w.pt", {"a": torch.zeros(1)}), "w.pt"),
    (D, "test", "", "no checkpoint", lambda: put(f"{CHOSEN}/best.pt", None), "best.pt"),
    (D, "test", "", "checkpoint cut", lambda: cut(f"{CHOSEN}/best.pt"), "best.pt"),
    (D, "test", "", "checkpoint runs code", lambda: pickled(f"{CHOSEN}/best.pt"), "best.pt"),
    (D, "test", "", "another network", lambda: other_network(f"{CHOSEN}/best.pt"), "best.pt"),
    (D, "test", "", "other keys", lambda: save(
        f"{CHOSEN}/best.pt", {"weights": torch.zeros(3)}), "best.pt"),
    (D, "test", "--img-dir none", "no folder of images", lambda: None, "none"),
    (S, "test", "--img-dir data/tiny/images --points-dir data", "a folder without points",
     lambda: None, "data: no points of these images; expected "),
    (S, "prepare_data", "", "no detections", lambda: put(DETECTIONS, None), "train0_points.csv"),
    (S, "prepare_data", "", "other columns", lambda: put(DETECTIONS, "a,b\n1,2\n"),
     "train0_points.csv"),
    (S, "prepare_data", "", "an empty table", lambda: put(DETECTIONS, ""), "train0_points.csv"),
    (S, "train", "", "no Voronoi label", lambda: shutil.rmtree(
        f"{SEG}/labels_voronoi"), "labels_voronoi/train0.png"),
    (S, "train", "", "last.pt cut", lambda: put(f"{SEG}/labels/last.pt", b"x" * 99),
     "last.pt"),
    (S, "test", "", "no selection", lambda: put(f"{SEG}/selection.json", None), "selection"),
    (S, "test", "", "selection of nothing", lambda: put(f"{SEG}/selection.json", {}),
     "selection.json"),
    (S, "test", "", "selection of a ghost", lambda: put(f"{SEG}/selection.json", {
        "checkpoint": "no/best.pt", "instances": "points"}), "no/best.pt"),
    (S, "test", "", "selection of another version", lambda: put(f"{SEG}/selection.json", {
        "checkpoint": "labels/best.pt", "instances": "detected"}), "selection.json"),
]  # fmt: skip

OPTIONS = [
    ("--no-such-option", "no such option"), ("--ratio 2", "--ratio must be"),
    ("--ratio x", "--ratio"), ("--epochs 0", "--epochs must be"), ("--device moon", "--device"),
    ("--precision fp8", "--precision must be"), ("--model vgg", "--model must be"),
    ("--tile 8", "--tile must be"), ("--tile 64 --overlap 64", "--overlap must be"),
    ("--workers -2", "--workers must be"), ("--dropout 1", "--dropout must be"),
    ("--cache nowhere", "--cache must be"), ("--lr 0", "--lr must be"),
]  # fmt: skip


def tree(folder: Path) -> dict[str, int]:
    """Files and their times, but for what may be rewritten before input is read."""
    files = (path for path in folder.rglob("*") if path.is_file())
    kept = (path for path in files if path.name not in ("options.json", ".lock"))
    return {str(path): path.stat().st_mtime_ns for path in kept}


def stopped_line(action, capfd) -> str:
    """The one line with which an action ends with status 2."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        action()
    error = capfd.readouterr().err
    assert stopped.value.code == 2, error
    assert error.count("\n") == 1 and error.startswith("error: "), error
    return error


def refused(action, capfd, named: str) -> None:
    """The action ends with status 2 and one line that names what is wrong; nothing is written."""
    before = tree(Path())
    assert named in stopped_line(action, capfd)
    assert tree(Path()) == before


broken_data = pytest.mark.parametrize(
    ("damage", "named"), [case[1:] for case in DATA], ids=[case[0] for case in DATA]
)


@broken_data
def test_broken_data_stops_the_preparation(new, capfd, damage, named):
    damage()
    assert named in stopped_line(lambda: start(D, "prepare_data"), capfd)
    assert not list(new.rglob("*.tmp")) and not list(new.glob("out/**/colours.json"))


@broken_data
def test_broken_data_stops_stage_1_before_training(new, capfd, damage, named):
    damage()
    assert named in stopped_line(lambda: start(D, "main"), capfd)
    assert not list(new.rglob("*.pt")) and not list(new.rglob("*.tmp"))


@broken_data
def test_broken_data_is_a_finding_of_the_check(new, capfd, damage, named):
    damage()
    arguments = ["--dataset", "tiny", "--data-root", "data", "--root-save-dir", "out"]
    assert check(read_arguments(arguments)) == 2
    printed = capfd.readouterr().out
    assert "FAIL" in printed and named.split("/")[-1][:6] in printed


@pytest.mark.parametrize(
    ("stage", "script", "more", "damage", "named"),
    [(*case[:3], *case[4:]) for case in RUNS],
    ids=[f"{case[0]} {case[1]}: {case[3]}" for case in RUNS],
)
def test_a_broken_run_is_refused(folder, capfd, stage, script, more, damage, named):
    damage()
    refused(lambda: start(stage, script, *more.split()), capfd, named)
    assert not (folder / "run.txt").exists()


@pytest.mark.parametrize("stage", [D, S])
@pytest.mark.parametrize("script", ACTION)
@pytest.mark.parametrize(("words", "named"), OPTIONS, ids=[case[0] for case in OPTIONS])
def test_wrong_options_are_refused(tmp_path, monkeypatch, capfd, stage, script, words, named):
    """By their name or value, or because the script has no use for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{script}.py", *words.split()])
    options = importlib.import_module(f"{PACKAGE[stage]}.options")
    cls = getattr(options, ACTION[script][1])
    if words.split()[0] in flags(options.Options) - flags(cls):
        named = "means nothing to"

    def begin():
        """All that the script does before its own work."""
        given = read_command_line(cls, "")
        run_script(lambda: together(print, given))

    refused(begin, capfd, named)
