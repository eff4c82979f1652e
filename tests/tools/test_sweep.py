"""A table of experiments runs, stops in time, continues, and ends in a table of results."""

import shutil
import sys
import time

import pytest
from conftest import RUN, TINY, TINY_DETECTION, TINY_SEG

from code_common.errors import InputError
from code_common.files.writing import write_json
from tools.sweep import compare_finished, list_jobs, main, parse_arguments, read_sweep, run_for

PLAIN = {"dataset": "tiny", "ratios": [0.5], "variants": {}}
VARIANTS = {"plain": {}, "smooth": {"seg": "--alpha 0.3", "detection of": "plain"}}


@pytest.fixture
def jobs(tmp_path):
    """The jobs of two ratios, two repeats and two variants beside 'paper'."""
    table = {**PLAIN, "ratios": [0.05, 0.1], "repeats": 2, "both": "--epochs 3"}
    write_json(tmp_path / "t.json", {**table, "variants": VARIANTS})
    return list(list_jobs(read_sweep(tmp_path / "t.json"), tmp_path / "out", ["--device", "cpu"]))


def test_every_variant_of_a_repeat_comes_before_the_next(jobs):
    titles = [job.title for job in jobs]
    assert titles[:6] == [
        "paper, ratio 0.05, repeat 1: detection",
        "paper, ratio 0.05, repeat 1: seg",
        "plain, ratio 0.05, repeat 1: detection",
        "plain, ratio 0.05, repeat 1: seg",
        "smooth, ratio 0.05, repeat 1: seg",
        "paper, ratio 0.1, repeat 1: detection",
    ]
    repeats, ratios, stages = 2, 2, 5
    assert len(titles) == repeats * ratios * stages
    assert "repeat 1" in titles[ratios * stages - 1] and "repeat 2" in titles[ratios * stages]


def test_options_of_a_variant_come_last(jobs):
    (smooth,) = [job for job in jobs if job.title == "smooth, ratio 0.05, repeat 1: seg"]
    words = " ".join(smooth.command)
    assert "--epochs 3 --device cpu --alpha 0.3" in words


def test_a_variant_takes_the_detections_of_another(jobs, tmp_path):
    (smooth,) = [job for job in jobs if job.title == "smooth, ratio 0.05, repeat 1: seg"]
    detections = tmp_path / "out/plain/tiny/ratio_0.05/repeat_1/detection"
    assert smooth.command[-2:] == ["--detection-results-dir", str(detections)]


def test_the_variant_paper_is_as_published(jobs):
    words = " ".join(jobs[1].command)
    assert "--profile paper" in words
    assert "--instances components" in words and "--crf-backend lattice" in words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": []}, "expected {"),
        ({"variants": {"a": 3}}, "expected {"),
        ({"variants": {"a": {"seg": 3}}}, "expected {"),
        ({"ratios": ["0.1"]}, "expected {"),
        ({"ratio": 0.1}, "ratio: expected"),
        ({"ratios": []}, "ratios: expected"),
        ({"ratios": [0.1, 2]}, "ratios: expected"),
        ({"repeats": 0}, "repeats: expected"),
        ({"repeats": 1.5}, "repeats: expected"),
        ({"repeats": 1e20}, "repeats: expected"),
        ({"both": "--patient 'a"}, "both: .*No closing quotation"),
        ({"both": "--epochs 3 --restart"}, "both: .*--restart: the sweep gives each run its own"),
        ({"variants": {"a": {"seg": "--save-dir=x"}}}, "variant 'a', seg: .*--save-dir: the sweep"),
        ({"variants": {"a": {"seg": "'"}}}, "variant 'a', seg: .*No closing quotation"),
        ({"variants": {"": {}}}, "variant ''"),
        ({"variants": {"..": {}}}, r"variant '\.\.'"),
        ({"variants": {"a\n": {}}}, "variant"),
        ({"variants": {"a": {"segmentation": ""}}}, "variant 'a'"),
        ({"variants": {"../a": {}}}, r"variant '\.\./a'"),
        ({"variants": {"a": {"detection of": "b"}}}, "'b' runs no detection"),
        ({"variants": {"a": {"detection of": "a"}}}, "'a' runs no detection"),
        (
            {"variants": {"a": {"detection": "--rounds 2", "detection of": "paper"}}},
            "variant 'a': has no detection of its own",
        ),
        ({"ratios": [1, 1.0]}, "ratios: one stands there twice"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, change, message):
    write_json(tmp_path / "t.json", {**PLAIN, **change})
    with pytest.raises(InputError, match=message):
        read_sweep(tmp_path / "t.json")


def test_a_table_is_an_object(tmp_path):
    write_json(tmp_path / "t.json", ["no object"])
    with pytest.raises(InputError, match="expected {"):
        read_sweep(tmp_path / "t.json")


def test_a_variant_is_there_once(tmp_path):
    (tmp_path / "t.json").write_text(
        '{"dataset": "a", "ratios": [1], "variants": {"b": {}, "b": {}}}'
    )
    with pytest.raises(InputError, match="'b' stands there twice"):
        read_sweep(tmp_path / "t.json")


def test_a_command_is_stopped_in_time():
    began = time.monotonic()
    assert run_for([sys.executable, "-c", "import time; time.sleep(60)"], 0.5) is None
    assert time.monotonic() - began < 20


def test_a_command_that_ends_in_time_has_its_status():
    assert run_for([sys.executable, "-c", "raise SystemExit(3)"], 60) == 3


@pytest.fixture
def sweep(tmp_path, experiment, monkeypatch):
    """Runs the variant 'paper' of a tiny set, whose detection is done already."""
    seg = ["--instances", "components", *TINY_SEG]
    paper = {"detection": " ".join([*TINY_DETECTION, "--rounds 1"]), "seg": " ".join(seg)}
    monkeypatch.setattr("tools.sweep.PAPER", paper)
    write_json(tmp_path / "t.json", PLAIN)
    done = experiment.root / "repeat_1" / "detection"
    shutil.copytree(done, tmp_path / "out" / "paper" / RUN / "detection")
    ratio = TINY.index("--ratio")
    stage_options = [*TINY[2:ratio], *TINY[ratio + 2 :], "--data-root", experiment.home / "data"]

    def run(*more):
        words = ["--table", tmp_path / "t.json", "--out", tmp_path / "out", *stage_options, *more]
        main(*parse_arguments([str(word) for word in words]))

    return run


def test_a_sweep_that_is_out_of_time_does_nothing(sweep, capfd):
    sweep("--minutes", 0)
    assert "0 of 2 jobs are done; the same command continues" in capfd.readouterr().out


def test_a_sweep_from_its_table_to_its_results(tmp_path, sweep, capfd):
    sweep()
    printed = capfd.readouterr().out
    assert "== [1/2] paper, ratio 0.5, repeat 1: detection" in printed and "skipped" in printed
    assert "2 of 2 jobs are done\n" in printed and "run paper 50%  repeats 1" in printed
    assert "validation AJI" in (tmp_path / "out" / "compare.md").read_text()


def test_a_stage_that_fails_ends_the_sweep_with_a_comparison_of_the_others(
    tmp_path, experiment, sweep, capfd
):
    """Here a run with other options is there."""
    seg = tmp_path / "out" / "paper" / RUN / "segmentation"
    shutil.copytree(experiment.root / "repeat_1" / "segmentation", seg)
    message = "paper, ratio 0.5, repeat 1: seg: ended with status 2; .* needs another --out"
    with pytest.raises(InputError, match=message):
        sweep()
    assert "run paper 50%  repeats 1" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"both": "--no-such-option"}, "paper, ratio 0.5, repeat 1: detection: no such option"),
        ({"variants": {"bad": {"seg": "--alhpa 0.3"}}}, "repeat 1: seg: no such option: --alhpa; "),
        ({"variants": {"bad": {"seg": "--alpha 3"}}}, "bad, .* seg: --alpha must be from 0 to 1"),
        ({"variants": {"bad": {"both": "--gpus 0 0"}}}, "bad, .* detection: --gpus .* twice"),
        ({"dataset": "../x"}, "detection: --dataset must be a plain name"),
    ],
)
def test_a_wrong_option_is_found_before_the_first_job(tmp_path, sweep, capfd, change, said):
    write_json(tmp_path / "t.json", {**PLAIN, **change})
    with pytest.raises(InputError, match=said):
        sweep()
    assert capfd.readouterr() == ("", "")


def test_a_variant_comes_after_the_one_whose_detections_it_takes(tmp_path):
    table = {**PLAIN, "variants": {"smooth": VARIANTS["smooth"], "plain": {}, "other": {}}}
    write_json(tmp_path / "t.json", table)
    jobs = list_jobs(read_sweep(tmp_path / "t.json"), tmp_path / "out", [])
    assert list(dict.fromkeys(job.title.split(",")[0] for job in jobs)) == [
        "paper",
        "plain",
        "other",
        "smooth",
    ]


def test_runs_that_are_not_in_the_table_are_told(tmp_path, experiment, capsys):
    """They are of an earlier table, say."""
    shutil.copytree(experiment.root, tmp_path / "paper" / "tiny" / "ratio_0.5")
    write_json(tmp_path / "t.json", PLAIN)
    compare_finished(read_sweep(tmp_path / "t.json"), tmp_path)
    other = tmp_path / "paper/tiny/ratio_0.5/repeat_2"
    told = capsys.readouterr().out
    assert f"1 runs that are not in the table are compared, too: {other}" in told
