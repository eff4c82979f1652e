"""Options: flags, help texts, the data set's row, bounds."""

import dataclasses
import os
from typing import ClassVar

import pytest

from code_common.config import field_help, fingerprint, flag_of, make_parser, parse, shown_fields
from code_common.errors import InputError
from code_detection.options import Options as Detection
from code_seg.options import Options as Segmentation
from code_seg.options import SegPredictOptions

BOTH = pytest.mark.parametrize("options", [Detection, Segmentation])


@BOTH
def test_every_field_is_a_flag_with_a_help_text(options):
    text, described = make_parser(options, "x").format_help(), field_help(options)
    assert shown_fields(options) and set(described) == {f.name for f in dataclasses.fields(options)}
    for name, (section, comment) in described.items():
        assert flag_of(name) in text and section in text
        assert len(comment) > 10, name


@BOTH
def test_flags_stand_in_the_groups_of_the_source(options):
    """Inference and hardware come last, as they matter least."""
    groups = {g.title: g for g in make_parser(options, "x")._action_groups if g._group_actions}
    described = field_help(options)
    for title, group in groups.items():
        for action in (a for a in group._group_actions if a.dest != "help"):
            assert described[action.dest].section == title
    assert list(groups)[-2:] == ["inference", "hardware"]
    assert "options" in groups  # --help alone
    assert [a.dest for a in groups["options"]._group_actions] == ["help"]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Options of no script."""

    # --- paper
    width: int = 3  # in centimetres;
    #   the height follows
    # --- pens
    colour: str = "red"  # of the line
    thickness: float = 0.5  # of the line

    USES: ClassVar[tuple] = ("paper", "thickness")


def test_help_goes_on_below_its_field():
    assert field_help(Drawing)["width"] == ("paper", "in centimetres; the height follows")
    assert field_help(Drawing)["colour"] == ("pens", "of the line")


def test_a_script_shows_what_it_uses(capsys):
    """Sections or single options; what other scripts of the stage take is told apart."""
    assert [field.name for field in shown_fields(Drawing)] == ["width", "thickness"]
    wrong = {"--colour": "--colour means nothing to", "--color": "no such option: --color"}
    for flag, message in wrong.items():
        with pytest.raises(SystemExit) as stopped:
            make_parser(Drawing, "x").parse_args([flag, "blue"])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@BOTH
def test_none_takes_the_row_of_the_data_set_and_a_flag_wins(options):
    assert parse(options, "x", ["--dataset", "MO"]).batch_size in (8, 16)
    assert parse(options, "x", ["--dataset", "MO", "--batch-size", "3"]).batch_size == 3
    assert parse(options, "x", ["--dataset", "sample"]).pretrained == "none"
    unknown = parse(options, "x", ["--dataset", "mine"])  # takes the row 'default'
    assert unknown.batch_size == parse(options, "x", ["--dataset", "MO"]).batch_size


@BOTH
def test_a_profile_is_over_the_row_and_a_flag_over_both(options):
    for dataset in ("MO", "sample", "mine"):
        row = parse(options, "x", ["--dataset", dataset])
        scratch = parse(options, "x", ["--dataset", dataset, "--profile", "scratch"])
        changed = options.PROFILES["scratch"]
        for field in dataclasses.fields(options):
            value = changed.get(field.name, getattr(row, field.name))
            if field.name != "profile":
                assert getattr(scratch, field.name) == value, (dataset, field.name)
    flags = ["--epochs", "3", "--pretrained", "imagenet", "--width", "1", "--dropout", "0.2"]
    for order in (["--profile", "scratch", *flags], [*flags, "--profile", "scratch"]):
        mixed = parse(options, "x", ["--dataset", "MO", *order])
        assert (mixed.epochs, mixed.pretrained) == (3, "imagenet")
        assert (mixed.width, mixed.dropout) == (1, 0.2)
        assert mixed.schedule == "cosine"


@BOTH
def test_a_profile_changes_nothing_that_its_flags_would_not(options):
    """A run begun with the flags goes on with the profile, and the other way round."""
    assert "profile" in options.NOT_IN_RESULT
    assert set(options.PROFILES["scratch"]).isdisjoint(options.NOT_IN_RESULT)
    with pytest.raises(InputError, match="--profile must be one of paper, scratch, not wide"):
        parse(options, "x", ["--profile", "wide"])


def test_the_published_constants():
    mo, lc = (parse(Detection, "x", ["--dataset", d]) for d in ("MO", "LC"))
    assert (mo.r1, mo.r2, mo.sigma, mo.max_area) == (11, 22, 2.75, 200)
    assert (lc.r1, lc.r2, lc.sigma, lc.max_area) == (8, 16, 2, 150)
    assert (mo.rounds, mo.epochs, mo.batch_size, mo.lr, mo.threshold) == (3, 80, 16, 1e-4, 0.35)
    mo, lc = (parse(Segmentation, "x", ["--dataset", d]) for d in ("MO", "LC"))
    assert (mo.crf_weight, mo.crf_sigma_rgb, mo.crf_sigma_xy) == (0.005, 0.1, 9)
    assert (lc.crf_weight, lc.crf_sigma_rgb) == (0.001, 0.2)
    assert (mo.epochs, mo.crf_epochs, mo.batch_size, mo.alpha) == (100, 20, 8, 0.5)


@BOTH
def test_dataset_and_ratio_reach_the_run_folder(options):
    """D19, D22: folders are keyed by data set, ratio and repeat."""
    folder = parse(options, "x", ["--dataset", "MO", "--ratio", "0.05", "--repeat", "3"]).save_dir
    assert folder.parts[-4:-1] == ("MO", "ratio_0.05", "repeat_3")


@BOTH
def test_repeat_and_seed_change_every_seed(options):
    """D18: the seed is stored and used."""
    seeds = {
        parse(options, "x", ["--random-seed", str(s), "--repeat", str(r)]).seed(p)
        for s in (1, 2)
        for r in (1, 2)
        for p in (0, 1)
    }
    assert len(seeds) == 8


@BOTH
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--ratio", "0"),
        ("--ratio", "1.5"),
        ("--epochs", "0"),
        ("--lr", "-1"),
        ("--model", "vgg"),
        ("--overlap", "169"),  # of a tile of 224: every pixel would be computed 16 times
        ("--precision", "fp8"),
        ("--views", "3"),
        ("--random-seed", "-1"),
        ("--repeat", "0"),
        ("--gpus", "-1"),
        ("--device", "meta"),
        ("--device", "xpu"),
        ("--device", "cpu:1"),
        ("--device", "cuda:-1"),
        ("--pretrained", "absent.pt"),
    ],
)
def test_out_of_bounds_names_the_option_and_the_value(options, flag, value, capsys, tmp_path):
    with pytest.raises((InputError, SystemExit)) as error:
        parse(options, "x", ["--root-save-dir", str(tmp_path), flag, value])
    message = capsys.readouterr().err or str(error.value)
    assert message.startswith(f"error: {flag} " if error.type is SystemExit else f"{flag} ")
    assert value in message and message.strip().count("\n") == 0


@pytest.mark.parametrize(
    "wrong",
    ["--r1 30 --r2 10", "--sigma 500", "--min-area 500 --max-area 200", "--r1 1 --sigma 2"],
)
def test_options_that_contradict_each_other_are_refused(wrong, tmp_path):
    with pytest.raises(InputError, match="must be at least --"):
        parse(Detection, "x", ["--root-save-dir", str(tmp_path), *wrong.split()])


@pytest.mark.parametrize(
    ("options", "given", "said"),
    [
        (Detection, "--threshold 0.9", "--threshold has no effect with --auto-threshold"),
        (Detection, "--threshold 0.9 --no-auto-threshold", ""),
        (Detection, "--rounds 0 --final-round best", "--final-round has no effect with --rounds 0"),
        (Segmentation, "--crf-weight 7", "--crf-weight has no effect with --crf-epochs 0"),
        (Segmentation, "--crf-weight 7 --crf-epochs 1", ""),
        (
            Segmentation,
            "--profile paper --self-training-points annotated",
            "--self-training-points has no effect with --self-training-epochs 0",
        ),
    ],
)
def test_an_option_without_effect_is_told(options, given, said, capsys, tmp_path):
    parse(options, "x", ["--root-save-dir", str(tmp_path), "--profile", "scratch", *given.split()])
    assert capsys.readouterr().err.strip() == said


@BOTH
def test_a_gpu_is_named_once(options):
    assert parse(options, "x", ["--gpus", "1", "0"]).gpus == (1, 0)
    with pytest.raises(InputError, match="--gpus 0 1 0: names a GPU twice"):
        parse(options, "x", ["--gpus", "0", "1", "0"])


@BOTH
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_first_weights_are_those_of_a_file(options, kind, tmp_path):
    path = tmp_path / "weights.pt"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(InputError, match=f"--pretrained {path}: no such file"):
        parse(options, "x", ["--root-save-dir", str(tmp_path), "--pretrained", str(path)])


@BOTH
def test_a_run_that_has_begun_needs_its_first_weights_no_more(options, tmp_path):
    (tmp_path / "options.json").touch()
    given = ["--pretrained", "absent.pt", "--save-dir", str(tmp_path)]
    assert parse(options, "x", given).pretrained == "absent.pt"


@BOTH
def test_the_row_of_a_data_set_is_checked_like_a_flag(options, monkeypatch):
    monkeypatch.setitem(options.DATASETS, "mine", {"epochs": 10**9})
    with pytest.raises(InputError, match="--epochs must be from 1 to 100000, not 1000000000"):
        parse(options, "x", ["--dataset", "mine"])


@BOTH
def test_the_help_of_model_names_the_encoders(options, monkeypatch):
    monkeypatch.setitem(options.COMMON_CHOICES, "model", ("small", "middle", "large"))
    assert field_help(options)["model"].comment.endswith("small, middle or large")


@BOTH
def test_booleans_are_real_flags(options):
    """D29: --flag False was true."""
    assert parse(options, "x", ["--restart"]).restart is True
    assert parse(options, "x", ["--no-restart"]).restart is False
    assert parse(options, "x", ["--no-pretrained"]).pretrained == "none"


def test_an_unknown_flag_is_one_line_with_the_nearest_name(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Detection, "x", ["--epoch", "3"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "--epochs" in message


def test_fingerprint_depends_on_values_not_on_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@BOTH
def test_a_pattern_that_is_none_is_told(options):
    with pytest.raises(InputError, match=r"--patient \(: no regular expression"):
        parse(options, "x", ["--patient", "("])


def test_an_option_of_several_values_may_be_given_twice():
    words = ["--images", "a.png", "b.png", "--out", "out", "--images", "c.png"]
    given = parse(SegPredictOptions, "", words).images
    assert [str(path) for path in given] == ["a.png", "b.png", "c.png"]
