"""Broken inputs at every entry point: one line, status 2, no traceback, nothing half written."""

import importlib
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import ACTION, TINY, make_dataset, run_here

from code_common.errors import run_script
from code_common.files.writing import write_json, write_png
from code_common.learning.checkpoints import save_network
from code_common.learning.network import ResUNet

D, S = "detection", "segmentation"
SIZES = "--rounds 1 --r1 6 --r2 12 --sigma 1.5".split()
MORE = {D: SIZES, S: "--crf-epochs 0 --merge-radius 6".split()}
PACKAGE = {D: "code_detection", S: "code_seg"}
RUN = "out/tiny/ratio_0.5/repeat_1"


def start(stage: str, script: str, *more: str) -> None:
    """A script of a stage, as its __main__ does it, in the present folder."""
    given = [*TINY, "--data-root", "data", "--root-save-dir", "out", *MORE[stage], *more]
    run_script(lambda: run_here(PACKAGE[stage], script, *given))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A data set and a finished run of both stages on it."""
    folder = tmp_path_factory.mktemp("finished")
    make_dataset(folder / "data" / "tiny")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for stage in (D, S):
            start(stage, "main")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A copy of it to be damaged; files are links, so damage replaces them."""
    shutil.copytree(finished, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    def __reduce__(self):
        return (os.system, ("echo run > run.txt",))


def pickled(path: str) -> None:
    put(path, pickle.dumps({"network": Code()}))


def other_network(path: str) -> None:
    Path(path).unlink()
    torch.save(save_network(ResUNet("resnet18", 1), "resnet34"), path)


def without_keys(path: str) -> None:
    Path(path).unlink()
    torch.save({"weights": torch.zeros(3)}, path)


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
                                  np.zeros((64, 64), np.float32))), "train1.tif"),
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

ROUND = f"{RUN}/{D}/round_0"
FOUND = f"{RUN}/{D}/detections/train0_points.csv"
RUNS = [  # stage, script, more options, name, damage, what the line names
    (D, "train", "", "no colours", lambda: put(f"{RUN}/{D}/colours.json", None), "colours.json"),
    (D, "train", "", "colours broken", lambda: put(f"{RUN}/{D}/colours.json", "{"), "colours"),
    (D, "train", "", "colours of two", lambda: put(f"{RUN}/{D}/colours.json", {"mean": [1, 2]}),
     "colours.json"),
    (D, "train", "", "no points", lambda: put(f"{RUN}/{D}/points/train0.csv", None), "train0.csv"),
    (D, "train", "", "words for points", lambda: put(f"{RUN}/{D}/points/train0.csv",
                                                     "row,col\na,b\n"), "train0.csv"),
    (D, "train", "", "points outside", lambda: put(f"{RUN}/{D}/points/train0.csv",
                                                   "row,col\n5,900\n"), "outside"),
    (D, "train", "", "points not finite", lambda: put(f"{RUN}/{D}/points/train0.csv",
                                                      "row,col\nnan,inf\n"), "train0.csv"),
    (D, "train", "--round 1", "no background", lambda: shutil.rmtree(
        f"{RUN}/{D}/round_1/background"), "background/train0.png"),
    (D, "train", "--pretrained no.pt", "no weights", lambda: None, "no.pt"),
    (D, "train", "--pretrained w.pt", "weights that run code", lambda: pickled("w.pt"), "w.pt"),
    (D, "train", "--pretrained w.pt", "weights of nothing", lambda: torch.save(
        {"a": torch.zeros(1)}, "w.pt"), "w.pt"),
    (D, "test", "", "no checkpoint", lambda: put(f"{ROUND}/best.pt", None), "best.pt"),
    (D, "test", "", "checkpoint cut", lambda: cut(f"{ROUND}/best.pt"), "best.pt"),
    (D, "test", "", "checkpoint runs code", lambda: pickled(f"{ROUND}/best.pt"), "best.pt"),
    (D, "test", "", "another network", lambda: other_network(f"{ROUND}/best.pt"), "best.pt"),
    (D, "test", "", "other keys", lambda: without_keys(f"{ROUND}/best.pt"), "best.pt"),
    (D, "test", "--img-dir none", "no folder of images", lambda: None, "none"),
    (S, "prepare_data", "", "no detections", lambda: put(FOUND, None), "train0_points.csv"),
    (S, "prepare_data", "", "other columns", lambda: put(FOUND, "a,b\n1,2\n"), "train0_points.csv"),
    (S, "prepare_data", "", "an empty table", lambda: put(FOUND, ""), "train0_points.csv"),
    (S, "train", "", "no Voronoi label", lambda: shutil.rmtree(
        f"{RUN}/{S}/labels_voronoi"), "labels_voronoi/train0.png"),
    (S, "train", "", "last.pt cut", lambda: put(f"{RUN}/{S}/labels/last.pt", b"x" * 99),
     "last.pt"),
    (S, "test", "", "no selection", lambda: put(f"{RUN}/{S}/selection.json", None), "selection"),
    (S, "test", "", "selection of nothing", lambda: put(f"{RUN}/{S}/selection.json", {}),
     "selection.json"),
    (S, "test", "", "selection of a ghost", lambda: put(f"{RUN}/{S}/selection.json", {
        "checkpoint": "no/best.pt", "instances": "points"}), "no/best.pt"),
    (S, "test", "", "selection of another version", lambda: put(f"{RUN}/{S}/selection.json", {
        "checkpoint": "labels/best.pt", "instances": "detected"}), "selection.json"),
]  # fmt: skip

OPTIONS = [
    ("--no-such-option", "no such option"), ("--ratio 2", "--ratio must be"),
    ("--ratio x", "--ratio"), ("--epochs 0", "--epochs must be"), ("--device moon", "--device"),
    ("--precision fp8", "--precision must be"), ("--model vgg", "--model must be"),
    ("--tile 8", "--tile must be"), ("--overlap 64", "--overlap must be"),
    ("--workers -2", "--workers must be"), ("--dropout 1", "--dropout must be"),
    ("--cache nowhere", "--cache must be"), ("--lr 0", "--lr must be"),
]  # fmt: skip


def tree(folder: Path) -> dict[str, int]:
    """Files and their times, but for what may be rewritten before input is read."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): p.stat().st_mtime_ns for p in files
            if p.name not in ("options.json", ".lock")}  # fmt: skip


def refused(action, capfd, named: str) -> None:
    """The action ends with status 2 and one line that names what is wrong; nothing is written."""
    before = tree(Path())
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        action()
    error = capfd.readouterr().err
    assert stopped.value.code == 2, error
    assert error.count("\n") == 1 and error.startswith("error: ") and named in error, error
    assert tree(Path()) == before


@pytest.mark.parametrize("script", ["prepare_data", "main", "check"])
@pytest.mark.parametrize(("damage", "named"), [c[1:] for c in DATA], ids=[c[0] for c in DATA])
def test_data(folder, capfd, monkeypatch, script, damage, named):
    shutil.rmtree(folder / RUN)
    damage()
    if script == "check":
        monkeypatch.setattr("sys.argv", ["check.py", "--dataset", "tiny", "--data-root", "data"])
        with pytest.raises(SystemExit) as stopped:
            run_script(importlib.import_module("data.check").main)
        told = capfd.readouterr().out
        assert stopped.value.code == 2 and "FAIL" in told and named.split("/")[-1][:6] in told
    elif script == "main":
        with suppress(FileNotFoundError):
            shutil.rmtree("out")
        before = {str(p) for p in folder.rglob("*.pt")}
        with pytest.raises(SystemExit) as stopped:
            start(D, "main")
        error = capfd.readouterr().err
        assert stopped.value.code == 2 and named in error and error.count("\n") == 1, error
        assert {str(p) for p in folder.rglob("*.pt")} == before
        assert not list(folder.rglob("*.tmp"))
    else:
        with pytest.raises(SystemExit) as stopped:
            start(D, script)
        error = capfd.readouterr().err
        assert stopped.value.code == 2 and named in error and error.count("\n") == 1, error
        assert not list(folder.rglob("*.tmp")) and not list(folder.glob("out/**/colours.json"))


@pytest.mark.parametrize(
    ("stage", "script", "more", "damage", "named"),
    [(*c[:3], *c[4:]) for c in RUNS],
    ids=[f"{c[0]} {c[1]}: {c[3]}" for c in RUNS],
)
def test_runs(folder, capfd, stage, script, more, damage, named):
    damage()
    refused(lambda: start(stage, script, *more.split()), capfd, named)
    assert not (folder / "run.txt").exists()


@pytest.mark.parametrize("stage", [D, S])
@pytest.mark.parametrize("script", list(ACTION))
@pytest.mark.parametrize(("given", "named"), OPTIONS, ids=[c[0] for c in OPTIONS])
def test_options(tmp_path, monkeypatch, capfd, stage, script, given, named):
    monkeypatch.chdir(tmp_path)
    refused(lambda: start(stage, script, *given.split()), capfd, named)
