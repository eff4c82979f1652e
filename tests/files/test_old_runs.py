"""A run that an older version began goes on: nothing is done again, nothing changes unsaid."""

import pytest
from test_scripts import RUN, options

from code_common.errors import InputError
from code_common.files import old_runs
from code_common.files.reading import read_json
from code_common.files.writing import write_json

STAGES = {"detection": "code_detection/main.py", "segmentation": "code_seg/main.py"}


def age(folder, lacks=(), **more):
    """Make a run's folder one that a version before these options were added has left."""
    saved = read_json(folder / "options.json")
    saved["options"] = {k: v for k, v in saved["options"].items() if k not in lacks} | more
    write_json(folder / "options.json", saved)
    for marker in (folder / ".done").glob("*.json"):
        write_json(marker, {"key": "0123456789abcdef", **read_json(marker)})


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_of_an_older_version_is_not_done_again(tmp_path, dataset, run_script, stage):
    given = dict(zip(STAGES, options(tmp_path, rounds=0), strict=True))
    for name, script in STAGES.items():
        run_script(script, *given[name])
        if name == stage:
            break
    folder = tmp_path / "out" / RUN / stage
    age(folder, lacks=old_runs.ADDED)
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}
    told = run_script(STAGES[stage], *given[stage], "--width", 1).stdout
    assert told.count("skipped") == len(told.splitlines()) >= 5
    assert stamps == {p: p.stat().st_mtime_ns for p in folder.rglob("*.pt")}


def test_what_an_older_run_lacks_counts_as_its_published_default(tmp_path, dataset, run_script):
    given = options(tmp_path, rounds=0)[0]
    run_script("code_detection/main.py", *given)
    age(tmp_path / "out" / RUN / "detection", lacks=["schedule"])
    told = run_script("code_detection/main.py", *given, "--schedule", "cosine", code=2).stderr
    assert "holds a run with --schedule constant, not cosine" in told and told.count("\n") == 1


def test_a_renamed_option_keeps_its_value_and_a_removed_one_its_word(monkeypatch, tmp_path):
    monkeypatch.setattr(old_runs, "RENAMED", {"rate": "lr"})
    monkeypatch.setattr(old_runs, "REMOVED", {"networks": 1})
    today = old_runs.options_today({"rate": 0.1, "networks": 1}, tmp_path)
    assert today == old_runs.ADDED | {"lr": 0.1}
    assert old_runs.options_today({"views": 8}, tmp_path)["views"] == 8
    with pytest.raises(InputError, match="a run with --networks 3, an option that is gone"):
        old_runs.options_today({"networks": 3}, tmp_path)


def test_finished_steps_without_options_are_refused(tmp_path, dataset, run_script):
    given = options(tmp_path, rounds=0)[0]
    run_script("code_detection/main.py", *given)
    (tmp_path / "out" / RUN / "detection" / "options.json").unlink()
    told = run_script("code_detection/main.py", *given, code=2).stderr
    assert "holds finished steps, but no options.json" in told and told.count("\n") == 1
