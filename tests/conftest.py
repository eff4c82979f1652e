"""Fixtures: devices, real tiles where they are, a tiny data set, scripts as processes."""

import fcntl
import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from code_common.config import parse  # noqa: E402
from code_common.files.writing import write_instances, write_json, write_png  # noqa: E402


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Each test that takes it runs on the CPU and, where there is one, on a GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def mo() -> Path:
    """The real Multi-Organ tiles, which are not part of the project."""
    path = PROJECT.parent / "shared" / "data" / "MO"
    if not path.is_dir():
        pytest.skip(f"the MO data set is not at {path}")
    return path


def blob_image(rng: np.random.Generator, shape=(64, 64), count=5):
    """A pink image with dark disks, and their instance map."""
    image = np.full((*shape, 3), (225, 180, 215), np.uint8)
    instances = np.zeros(shape, np.int32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    cells = rng.permutation(max(1, shape[0] // 20) * max(1, shape[1] // 20))[:count]
    for label, cell in enumerate(cells, start=1):
        row, col = divmod(int(cell), max(1, shape[1] // 20))
        disk = (y - row * 20 - 10) ** 2 + (x - col * 20 - 10) ** 2 <= rng.integers(5, 8) ** 2
        instances[disk], image[disk] = label, (90, 60, 140)
    noise = rng.integers(-8, 9, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), instances


def make_dataset(folder: Path, train=2, val=1, test=1, shape=(64, 64)) -> Path:
    """A tiny data set in the project's layout."""
    rng, split = np.random.default_rng(0), {}
    for part, count in (("train", train), ("val", val), ("test", test)):
        split[part] = []
        for index in range(count):
            image, instances = blob_image(rng, shape)
            write_png(folder / "images" / f"{part}{index}.png", image)
            write_instances(folder / "labels_instance" / f"{part}{index}_label.tif", instances)
            split[part].append(f"{part}{index}.png")
    write_json(folder / "train_val_test.json", split)
    return folder


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A tiny data set named 'tiny' in tmp_path/data."""
    return make_dataset(tmp_path / "data" / "tiny")


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, where there is one."""
    api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


# As small as the real scripts go: seconds on a CPU.
TINY = (
    "--dataset tiny --model resnet18 --no-pretrained --epochs 1 --batch-size 2 --patch-size 64 "
    "--input-size 64 --tile 64 --overlap 16 --workers 0 --device cpu --ratio 0.5 --precision fp32"
).split()


@pytest.fixture
def run_script(tmp_path):
    """Run a script of the project as a user does, from another folder."""

    def run(script: str, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(PROJECT / script), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@dataclass(frozen=True)
class Experiment:
    """What `bash run.sh` made of a tiny data set: two repeats with points of their own."""

    told: str  # what it printed
    home: Path  # holds data/tiny and out/
    root: Path  # out/tiny/ratio_0.5


@pytest.fixture(scope="session")
def experiment(tmp_path_factory) -> Experiment:
    """A finished experiment that tests read, and never write to; all workers share one."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "experiment"
    home.mkdir(exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "told.txt").is_file():
            make_dataset(home / "data" / "tiny", test=3)
            command = [
                "bash", PROJECT / "run.sh", *TINY, "--data-root", home / "data",
                "--root-save-dir", home / "out", "--repeats", 2,
                "--detection", "--rounds", 1, "--r1", 6, "--r2", 12, "--sigma", 1.5,
                "--seg", "--crf-epochs", 1, "--crf-sigma-xy", 3, "--merge-radius", 6,
            ]  # fmt: skip
            done = subprocess.run(
                list(map(str, command)), cwd=home, capture_output=True, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            (home / "told.txt").write_text(done.stdout)
    told = (home / "told.txt").read_text()
    return Experiment(told, home, home / "out" / "tiny" / "ratio_0.5")


ACTION = {"prepare_data": "prepare", "train": "train", "test": "test", "main": "main"}


def run_here(stage: str, script: str, *arguments: object) -> None:
    """What a script of a stage does, in this process: no seconds of imports."""
    module = importlib.import_module(f"{stage}.{script}")
    options = importlib.import_module(f"{stage}.options").Options
    parse(options, "", list(map(str, arguments))).run(getattr(module, ACTION[script]))
