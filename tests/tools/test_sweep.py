"""A table of experiments runs, stops in time, goes on, and ends in a table of results."""

import shutil
import sys
import time

import pytest
from conftest import TINY

from code_common.errors import InputError
from code_common.files.writing import write_json
from tools.sweep import jobs, main, read_table, run_for

PLAIN = {"dataset": "tiny", "ratios": [0.5], "variants": {}}


def test_every_variant_of_a_repeat_comes_before_the_next(tmp_path):
    variants = {"plain": {}, "smooth": {"seg": "--alpha 0.3", "detection of": "plain"}}
    table = {**PLAIN, "ratios": [0.05, 0.1], "repeats": 2, "both": "--epochs 3"}
    write_json(tmp_path / "t.json", {**table, "variants": variants})
    every = list(jobs(read_table(tmp_path / "t.json"), tmp_path / "out", ["--device", "cpu"]))
    titles = [job.title for job in every]
    assert titles[:6] == [
        "paper, ratio 0.05, repeat 1: detection", "paper, ratio 0.05, repeat 1: seg",
        "plain, ratio 0.05, repeat 1: detection", "plain, ratio 0.05, repeat 1: seg",
        "smooth, ratio 0.05, repeat 1: seg", "paper, ratio 0.1, repeat 1: detection",
    ]  # fmt: skip
    assert len(titles) == 2 * 2 * 5 and "repeat 2" in titles[10]
    words = " ".join(every[4].command)
    assert "--epochs 3 --device cpu --alpha 0.3" in words
    assert words.endswith("/out/plain/tiny/ratio_0.05/repeat_1/detection")
    paper = " ".join(every[1].command)
    assert "--instances components" in paper and "--crf-backend lattice" in paper


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": []}, "variants: expected"),
        ({"ratio": 0.1}, "ratio: expected"),
        ({"variants": {"a": {"segmentation": ""}}}, "variant 'a'"),
        ({"variants": {"../a": {}}}, r"variant '\.\./a'"),
        ({"variants": {"a": {"detection of": "b"}}}, "'b' runs no detection"),
        ({"variants": {"a": {"detection of": "a"}}}, "'a' runs no detection"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, change, message):
    write_json(tmp_path / "t.json", {**PLAIN, **change})
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.json")
    write_json(tmp_path / "t.json", ["no object"])
    with pytest.raises(InputError, match="expected an object"):
        read_table(tmp_path / "t.json")


def test_a_command_is_stopped_in_time():
    began = time.monotonic()
    assert run_for([sys.executable, "-c", "import time; time.sleep(60)"], 0.5) is None
    assert time.monotonic() - began < 20
    assert run_for([sys.executable, "-c", "raise SystemExit(3)"], 60) == 3


def test_a_sweep_from_its_table_to_its_results(tmp_path, experiment, monkeypatch, capfd):
    """The detection is done already; stage 2 of the variant 'paper' is run."""
    detection = "--rounds 1 --r1 6 --r2 12 --sigma 1.5"
    seg = "--crf-epochs 1 --crf-sigma-xy 3 --merge-radius 6"
    monkeypatch.setattr("tools.sweep.PAPER", {"detection": detection,
                        "seg": f"--instances components {seg}"})  # fmt: skip
    write_json(tmp_path / "t.json", PLAIN)
    done = experiment.root / "repeat_1" / "detection"
    shutil.copytree(done, tmp_path / "out/paper/tiny/ratio_0.5/repeat_1/detection")
    more = [*TINY[2:-4], "--precision", "fp32", "--data-root", experiment.home / "data"]
    command = ["sweep.py", "--table", tmp_path / "t.json", "--out", tmp_path / "out", *more]
    monkeypatch.setattr("sys.argv", [*map(str, command), "--minutes", "0"])
    main()
    assert "0 of 2 jobs are done; the same command goes on" in capfd.readouterr().out
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    main()
    told = capfd.readouterr().out
    assert "== [1/2] paper, ratio 0.5, repeat 1: detection" in told and "skipped" in told
    assert "2 of 2 jobs are done\n" in told and "run paper 50%  repeats 1" in told
    assert "validation AJI" in (tmp_path / "out" / "compare.md").read_text()
    monkeypatch.setattr("sys.argv", [*map(str, command), "--no-such-option"])
    with pytest.raises(InputError, match="ended with status 2"):
        main()
