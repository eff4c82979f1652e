"""What a script's command line shows: at once, in groups, and only the options that it uses."""

import dataclasses
import importlib
import math
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PROJECT, RUN, both_stages, link_run, taken_by
from test_structure import MODULES, is_script

from code_common import options as common_options
from code_common.config import Bounded, Parser, _shown, field_help, parse, shown_fields

STAGES = ("code_detection", "code_seg")
SCRIPTS = [str(path.relative_to(PROJECT)) for path in MODULES.values() if is_script(path)]
# Packages that take long to import.
HEAVY = ("torch", "torchvision", "numpy", "scipy", "skimage", "cv2")
SHOW_HELP = f"""
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0
print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""
# An own folder of images, in the data set of the run.
OWN_IMAGES = "--img-dir {data}/images --label-dir {data}/labels_instance"
PREDICTION = "--model {run} --images {data}/images/test0.png --out {home}/predicted"


@dataclass(frozen=True)
class Script:
    """A script of a stage that has trained options, and how it is called here."""

    path: str
    action: str  # its function that takes the options
    options: str  # name of their class
    # Arguments beside those of a finished run: in all these calls together, what it shows is used.
    calls: tuple[str, ...] = ("",)
    unused: tuple[str, ...] = ()  # options that it reads, and that change nothing

    @property
    def stage(self) -> str:
        """The package that it is in."""
        return self.path.partition("/")[0]

    @property
    def options_class(self) -> type:
        """The class of its options, of its stage or of both."""
        module = importlib.import_module(f"{self.stage}.options")
        return getattr(module, self.options, None) or getattr(common_options, self.options)

    def do(self, options: object) -> None:
        """What the script does with its options."""
        module = importlib.import_module(self.path.removesuffix(".py").replace("/", "."))
        action = getattr(module, self.action)
        if self.action == "pictures_of":
            action(options, 1)
        else:
            action(options)


STAGE_SCRIPTS = [
    Script(
        "code_detection/main.py",
        action="main",
        options="Options",
        calls=("--save-dir {home}/anew",),
    ),
    Script("code_detection/prepare_data.py", action="prepare", options="PrepareOptions"),
    Script(
        "code_detection/train.py",
        action="train",
        options="TrainOptions",
        calls=("--round 0", "--round 1"),
        unused=("views",),  # validations take one view
    ),
    Script(
        "code_detection/test.py",
        action="test",
        options="TestOptions",
        calls=(
            "--round 1",
            "--model-path {run}/detection/round_0/best.pt --save-dir {home}/anew",
            f"{OWN_IMAGES} --auto-threshold",
        ),
    ),
    Script(
        "code_detection/pictures.py",
        action="pictures_of",
        options="PicturesOptions",
        calls=("",),
    ),
    Script(
        "code_detection/predict.py",
        action="predict",
        options="DetectionPredictOptions",
        calls=(PREDICTION + " --annotate",),
    ),
    Script(
        "code_seg/main.py",
        action="main",
        options="Options",
        calls=(
            "--self-training-epochs 1 --save-dir {home}/anew "
            "--detection-results-dir {run}/detection",
        ),
    ),
    Script("code_seg/prepare_data.py", action="prepare", options="PrepareOptions"),
    Script(
        "code_seg/prepare_self_training.py",
        action="write_self_training_labels",
        options="PrepareSelfTrainingOptions",
        calls=("", "--self-training-points annotated"),
    ),
    Script(
        "code_seg/train.py",
        action="train",
        options="TrainOptions",
        calls=("--self-training-epochs 1",),
    ),
    Script(
        "code_seg/test.py",
        action="test",
        options="TestOptions",
        calls=(
            "",
            "--model-path {run}/segmentation/crf/best.pt --instances points --save-dir {home}/anew",
            OWN_IMAGES + " --points-dir {run}/detection/detections",
        ),
    ),
    Script(
        "code_seg/pictures.py",
        action="pictures",
        options="PicturesOptions",
        calls=("--self-training-epochs 2",),
    ),
    Script("code_seg/oracles.py", action="oracles", options="OracleOptions"),
    Script(
        "code_seg/predict.py",
        action="predict",
        options="SegPredictOptions",
        calls=(
            PREDICTION + " --coco",
            PREDICTION + " --points {run}/detection/detections/test0_points.csv --only-points",
        ),
    ),
]
EACH_STAGE_SCRIPT = pytest.mark.parametrize("script", STAGE_SCRIPTS, ids=lambda s: s.path)
# The folders of a run are made of these, and its other defaults of the profile.
PLACE = {"dataset", "data_root", "root_save_dir", "ratio", "repeat"}


def test_no_script_of_a_stage_is_missing_here():
    named = [script.path for script in STAGE_SCRIPTS]
    assert sorted(named) == sorted(s for s in SCRIPTS if s.startswith(STAGES))


def show_help(path: str) -> tuple[str, set[str]]:
    """What --help of a script prints, and which heavy packages were imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW_HELP, PROJECT / path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize("path", SCRIPTS)
def test_help_does_not_wait_for_torch(path):
    text, imported = show_help(path)
    assert "usage:" in text and len(text) > 200
    assert not imported & (set(HEAVY) if path.startswith(STAGES) else {"torch", "torchvision"})


def test_help_needs_no_docstrings():
    """python -OO, or PYTHONOPTIMIZE=2, removes them."""
    for path in ("data/make_sample.py", "tools/export_model.py"):
        command = [sys.executable, "-OO", PROJECT / path, "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and "usage:" in done.stdout, done.stderr
        assert "None" not in done.stdout


def test_the_benchmark_has_help(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["crf_loss.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(PROJECT / "tests/benchmarks/crf_loss.py"), run_name="__main__")
    assert stopped.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.fixture(scope="module", params=SCRIPTS)
def parser(request) -> Parser:
    """The parser with which a script reads its command line."""
    found = []

    def keep(self, *_):
        found.append(self)
        sys.exit()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Parser, "parse_known_args", keep)
        patch.setattr("sys.argv", [request.param])
        runpy.run_path(str(PROJECT / request.param), run_name="__main__")
    return found[0]


def says(parser: Parser, words: list[str], capsys) -> str:
    """The one line with which a parser refuses some words, with status 2."""
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("\n") == 1, message
    return message


def test_every_number_has_finite_bounds(parser, capsys):
    """Beyond them nothing begins: no overflow, no endless loop, no terabytes."""
    for action in (a for a in parser._actions if a.type):
        assert action.type not in (int, float), action.dest
        if not isinstance(action.type, Bounded):
            continue
        flag, kind = action.option_strings[0], action.type.kind
        low, high = action.type.low, action.type.high
        assert math.isfinite(low) and math.isfinite(high), flag
        wrong = ["nan", "inf", "-inf", "1e300", "-1e300", "9" * 5000, "x"]
        wrong += [str(kind(high + 1)), str(kind(low - 1))]
        for value in wrong:
            count = action.nargs if isinstance(action.nargs, int) else 1
            message = says(parser, [flag, *[value] * count], capsys)
            assert message.startswith(f"error: {flag} must be ") and value[:40] in message
            assert f"from {_shown(low)} to {_shown(high)}, not " in message
        assert action.type(str(low)) == low and action.type(str(high)) == high


def test_no_text_or_path_is_empty_or_of_several_lines(parser, capsys):
    """An unset variable of a shell gives "", and Path("") is the present folder."""
    for action in (a for a in parser._actions if a.type or a.nargs != 0):
        for flag in action.option_strings:
            for words in ([flag, ""], [f"{flag}="]):
                assert f"error: {flag} must not be empty" in says(parser, words, capsys)
            for value in ("a\nb", "a\0b"):
                assert f"error: {flag} must be text on one line" in says(
                    parser, [flag, value], capsys
                )


@EACH_STAGE_SCRIPT
def test_help_is_in_groups(script):
    text, _ = show_help(script.path)
    cls = script.options_class
    sections = {field_help(cls)[field.name].section for field in shown_fields(cls)}
    titles = {line.removesuffix(":") for line in text.splitlines() if line[:1].strip()}
    assert sections <= titles and len(sections) >= 3


def recording(cls: type) -> type:
    """A subclass of an options class, whose `read` tells the fields that were read.

    What dataclasses.replace and asdict read does not count, as they read everything.
    """
    names = {field.name for field in dataclasses.fields(cls)}

    class Recording(cls):
        read = set()

        def __getattribute__(self, name):
            if name in names and sys._getframe(1).f_globals["__name__"] != "dataclasses":
                Recording.read.add(name)
            return super().__getattribute__(name)

    return Recording


def given_to(script: Script, call: str, home: Path) -> list[str]:
    """The arguments of a call: those of the finished run in `home`, and its own."""
    words = ["--device", "cpu", "--precision", "fp32", "--tile", "64", "--overlap", "16"]
    if script.action != "predict":
        module = importlib.import_module(f"{script.stage}.options")
        common = both_stages(home)[STAGES.index(script.stage)]
        words = taken_by(script.options_class, module.Options, list(map(str, common)))
    data = home / "data" / "tiny"
    return words + call.format(data=data, run=home / "out" / RUN, home=home).split()


@EACH_STAGE_SCRIPT
def test_a_script_shows_what_it_uses_and_nothing_else(script, self_trained, experiment, tmp_path):
    link_run(experiment if script.stage == "code_detection" else self_trained, tmp_path)
    cls = recording(script.options_class)
    read: set[str] = set()
    for call in script.calls:
        options = parse(cls, "", given_to(script, call, tmp_path))
        cls.read.clear()  # what was read to check the options
        script.do(options)
        read |= cls.read
    shown = {field.name for field in shown_fields(script.options_class)}
    defaults = set().union(*getattr(cls, "PROFILES", {}).values())
    used = read | PLACE | ({"profile"} if defaults & shown else set())
    assert not shown - used, "shown, but not used"
    assert not read - shown - set(script.unused), "used, but not shown"


def refused(path: str, arguments: str, monkeypatch, capsys) -> str:
    """The one line with which a script refuses its arguments, with status 2."""
    monkeypatch.setattr("sys.argv", [path, *arguments.split()])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(PROJECT / path), run_name="__main__")
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("\n") == 1, message
    return message


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("wrong", ["--img-dir images", "--round 1"])
def test_main_takes_no_option_of_a_single_script(stage, wrong, monkeypatch, capsys):
    """Where it did, a step with other images than the data set's was marked as done."""
    message = refused(f"{stage}/main.py", wrong, monkeypatch, capsys)
    assert f"no such option: {wrong.split()[0]}" in message


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("code_detection/prepare_data.py", "--lr 0.1"),
        ("code_detection/main.py", "--shard 1/2"),
        ("code_detection/test.py", "--epochs 3"),
        ("code_seg/train.py", "--clusters 4"),
        ("code_seg/test.py", "--crf-weight 0.1"),
    ],
)
def test_an_option_of_another_script_is_told(path, wrong, monkeypatch, capsys):
    message = refused(path, wrong, monkeypatch, capsys)
    assert f"{wrong.split()[0]} means nothing to {Path(path).name}" in message


@pytest.mark.parametrize("path", ["code_detection/main.py", "code_seg/train.py", "data/check.py"])
def test_a_data_set_elsewhere_needs_a_name(path, monkeypatch, capsys, dataset):
    """Else it would train with the constants of the sample, and be called so."""
    message = refused(path, f"--data-dir {dataset}", monkeypatch, capsys)
    assert "--data-dir needs --dataset: the name of the results" in message


@pytest.mark.parametrize(
    "wrong", ["code_seg --points-dir p", "code_seg --label-dir l", "code_detection --label-dir l"]
)
def test_folders_of_own_images_need_these(wrong, monkeypatch, capsys):
    """Else the test images of the data set would be tested, without a word."""
    stage, _, arguments = wrong.partition(" ")
    assert "give --img-dir, too" in refused(f"{stage}/test.py", arguments, monkeypatch, capsys)
