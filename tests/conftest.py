"""Fixtures: devices, real tiles where they are, a tiny data set, scripts as processes."""

import fcntl
import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from code_common.config import make_parser, parse  # noqa: E402
from code_common.files.writing import write_instances, write_json, write_png  # noqa: E402
from code_common.inference import slides  # noqa: E402
from code_common.launch import together  # noqa: E402
from code_common.learning.precision import measured_gain, memory_folder  # noqa: E402


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Each test that takes it runs on the CPU and, where there is one, on a GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session", autouse=True)
def memory_of_this_machine(tmp_path_factory):
    """Nothing is read from the user's cache, and scripts do not tell that they measured."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    measured_gain(memory_folder())


@pytest.fixture
def open_slide():
    """Opens images as `slides.open_slide` does, and closes them behind the test."""
    with ExitStack() as opened:
        yield lambda *arguments, **names: opened.enter_context(
            closing(slides.open_slide(*arguments, **names))
        )


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
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not program:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


# As small as the real scripts go: seconds on a CPU.
TINY = (
    "--dataset tiny --model resnet18 --width 0.25 --no-pretrained --epochs 1 --batch-size 2 "
    "--patch-size 64 --input-size 64 --tile 64 --overlap 16 --workers 0 --device cpu --ratio 0.5 "
    "--precision fp32"
).split()
# What the nuclei of the tiny data set, disks of 5 to 7 pixels, need of each stage.
TINY_DETECTION = "--r1 6 --r2 12 --sigma 1.5".split()
TINY_SEG = "--crf-epochs 1 --crf-sigma-xy 3 --merge-radius 6".split()
SELF_TRAINING = ["--self-training-epochs", "2"]
RUN = "tiny/ratio_0.5/repeat_1"  # its first repeat, in the folder of all experiments


def place(home: Path) -> list:
    """The arguments by which a run finds its data in `home`, and leaves its results there."""
    return ["--data-root", home / "data", "--root-save-dir", home / "out"]


def both_stages(home: Path, *more: object, rounds: int = 1) -> tuple[list, list]:
    """The arguments of stage 1 and of stage 2 for a run in `home`; both get `more`."""
    common = [*TINY, *place(home), *more]
    return [*common, *TINY_DETECTION, "--rounds", rounds], [*common, *TINY_SEG]


def digest(folder: Path) -> str:
    """Changes with the names and the contents of the files in a folder, but for locks."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()


def link_tree(source: Path, target: Path) -> None:
    """A copy that takes no room: results are replaced, never written into.

    Locks stay behind, since a link to a locked file would be locked, too.
    """
    ignore = shutil.ignore_patterns(".lock")
    shutil.copytree(source, target, copy_function=os.link, ignore=ignore)


def run_process(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """A script of the project, .py or .sh, in a process of its own; its output is captured."""
    program = "bash" if script.endswith(".sh") else sys.executable
    return subprocess.run(
        [program, str(PROJECT / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def heed_signals() -> None:
    """In a process that is about to start: no signal is ignored, as nohup and the background do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def run_script(tmp_path):
    """Run a script of the project as a user does, from another folder."""

    def run(script: str, *arguments: object, code: int | None = 0) -> subprocess.CompletedProcess:
        done = run_process(script, *arguments, cwd=tmp_path)
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@dataclass(frozen=True)
class Experiment:
    """A finished experiment in a folder of its own. Tests read it, and never write to it."""

    home: Path  # holds data/tiny and out/

    @property
    def root(self) -> Path:
        """The folder of its repeats."""
        return (self.home / "out" / RUN).parent

    @property
    def printed(self) -> str:
        """What the run printed."""
        return (self.home / "printed.txt").read_text()

    @property
    def data_before(self) -> str:
        """Digest of its data set before the run."""
        return (self.home / "data_before.txt").read_text()


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], str]
) -> Experiment:
    """An experiment that the first of all workers makes; `make` returns what its run printed."""
    base = factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    home.mkdir(exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "printed.txt").is_file():
            printed = make(home)
            (home / "printed.txt").write_text(printed)
    return Experiment(home)


def make_experiment(home: Path) -> str:
    """`bash run.sh` on a tiny data set: two repeats with points of their own."""
    data = make_dataset(home / "data" / "tiny", test=3)
    (home / "data_before.txt").write_text(digest(data))
    stages = ["--detection", *TINY_DETECTION, "--rounds", 1, "--seg", *TINY_SEG]
    done = run_process("run.sh", *TINY, *place(home), "--repeats", 2, *stages, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def experiment(tmp_path_factory) -> Experiment:
    """Two repeats of both stages; its arguments are `both_stages`."""
    return made_once(tmp_path_factory, "experiment", make_experiment)


@pytest.fixture(scope="session")
def self_trained(experiment, tmp_path_factory) -> Experiment:
    """The first repeat, whose stage 2 trains a second network for two epochs."""

    def make(home: Path) -> str:
        link_tree(experiment.home / "data", home / "data")
        link_tree(experiment.root / "repeat_1" / "detection", home / "out" / RUN / "detection")
        seg = [*both_stages(home)[1], *SELF_TRAINING]
        done = run_process("code_seg/main.py", *seg, cwd=home)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return made_once(tmp_path_factory, "self_trained", make)


def link_run(source: Experiment, home: Path) -> Path:
    """The first repeat of an experiment, and its data set, where a test may change them.

    `both_stages(home)` are its arguments there. Returns the folder that holds both stages.
    """
    link_tree(source.home / "data", home / "data")
    link_tree(source.root / "repeat_1", home / "out" / RUN)
    return home / "out" / RUN


@pytest.fixture
def finished(experiment, tmp_path) -> Path:
    """A finished run of both stages in tmp_path, which a test may change."""
    return link_run(experiment, tmp_path)


# Script of a stage -> the action it does, and the class of its options.
ACTION = {
    "prepare_data": ("prepare", "PrepareOptions"),
    "train": ("train", "TrainOptions"),
    "test": ("test", "TestOptions"),
    "main": ("main", "Options"),
}


def flags(cls: type) -> set[str]:
    """All flags of an options class's command line."""
    return set(make_parser(cls, "")._option_string_actions)


def taken_by(cls: type, stage_options: type, arguments: list[str]) -> list[str]:
    """Arguments without those that other scripts of the stage take, but not that of `cls`."""
    taken, others, keep = [], flags(stage_options) - flags(cls), True
    for word in arguments:
        if word.startswith("--"):
            keep = word not in others
        if keep:
            taken.append(word)
    return taken


def run_here(stage: str, script: str, *arguments: object) -> object:
    """What a script of a stage does, in this process: no seconds of imports.

    Flags of the stage that the script does not take are left out, so that all scripts of a run may
    be given the same ones.
    """
    action, name = ACTION[script]
    module = importlib.import_module(f"{stage}.{script}")
    options = importlib.import_module(f"{stage}.options")
    cls = getattr(options, name)
    words = taken_by(cls, options.Options, list(map(str, arguments)))
    return together(getattr(module, action), parse(cls, "", words))
