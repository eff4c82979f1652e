"""Scripts of one step in the folder of a finished run: they take its options, and leave it alone
where it was made of something else.
"""

import shutil
from functools import partial

import numpy as np
import pytest
from conftest import both_stages, digest, run_here

from code_common.config import as_json, parse
from code_common.errors import InputError
from code_common.files.images import read_image
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_path, metrics_path, options_path, results_folder
from code_common.files.writing import write_json, write_png
from code_common.runs.same_run import inputs_of
from code_common.runs.steps import Run, Step, do_alone
from code_detection import options as detection_options
from code_seg import options as seg_options
from code_seg.oracles import oracles

OPTIONS = {"code_detection": detection_options, "code_seg": seg_options}
EACH_STAGE = pytest.mark.parametrize("stage", OPTIONS)


def arguments(home, stage, *more):
    return [*both_stages(home)[list(OPTIONS).index(stage)], *more]


def parsed(stage, name, words):
    return parse(getattr(OPTIONS[stage], name), "", list(map(str, words)))


def turn(path):
    """Write another image into a file."""
    write_png(path, np.ascontiguousarray(read_image(path)[::-1]))


def first(folder, pattern):
    return sorted(folder.glob(pattern))[0]


@EACH_STAGE
def test_a_run_of_other_images_is_left_alone(finished, tmp_path, stage):
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "data" / "tiny", other)
    turn(first(other / "images", "test0.*"))
    before, words = digest(finished), arguments(tmp_path, stage, "--data-dir", other)
    told = "the input images or labels have changed .* put them back"
    with pytest.raises(InputError, match=told):
        run_here(stage, "test", *words)
    with pytest.raises(InputError, match=told):  # prepare_data.py, pictures.py
        do_alone(lambda _: pytest.fail("was done"), parsed(stage, "Options", words))
    assert digest(finished) == before


def test_a_run_of_other_detections_is_left_alone(finished, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(finished / "detection", elsewhere)
    table = first(elsewhere / "detections", "test0*.csv")
    table.write_text(table.read_text() + "3,3,0.9\n")
    before = digest(finished)
    with pytest.raises(InputError):
        more = ("--detection-results-dir", elsewhere)
        run_here("code_seg", "test", *arguments(tmp_path, "code_seg", *more))
    assert digest(finished) == before


def change_options(folder, **changes):
    """Let a finished run have been made with other options."""
    saved = read_json(options_path(folder))
    write_json(options_path(folder), {**saved, "options": {**saved["options"], **changes}})


@pytest.mark.parametrize("name", ["TestOptions", "PicturesOptions", "OracleOptions"])
def test_a_script_takes_the_options_of_the_run(finished, tmp_path, name):
    change_options(finished / "segmentation", min_area=33, views=4, merge_radius=7.0, width=0.25)
    place = ["--dataset", "tiny", "--save-dir", finished / "segmentation"]
    place += ["--data-dir", tmp_path / "data" / "tiny"]
    taken = as_json(parsed("code_seg", name, place))
    assert (taken["min_area"], taken["views"], taken["merge_radius"]) == (33, 4, 7.0)
    assert taken["data_dir"] == str(tmp_path / "data" / "tiny")
    shown = parsed("code_seg", "TestOptions", [*place, "--views", 8, "--instances", "points"])
    assert (shown.views, shown.instances, shown.min_area) == (8, "points", 33)


def test_a_run_that_is_not_there_or_damaged_gives_no_options(finished, tmp_path):
    place = ["--dataset", "tiny", "--data-dir", tmp_path / "data" / "tiny", "--save-dir"]
    assert parsed("code_seg", "TestOptions", [*place, tmp_path / "new"]).min_area == 20
    options_path(finished / "segmentation").unlink()  # it is linked
    options_path(finished / "segmentation").write_text("{")
    assert parsed("code_seg", "TestOptions", [*place, finished / "segmentation"]).min_area == 20


def test_oracles_see_what_the_run_saw(finished, tmp_path):
    """With the least nucleus of the run, larger than any, nothing is found."""
    change_options(finished / "segmentation", min_area=5000)
    place = ["--dataset", "tiny", "--data-dir", tmp_path / "data" / "tiny", "--device", "cpu"]
    place += ["--save-dir", finished / "segmentation"]
    place += ["--detection-results-dir", finished / "detection"]
    oracles(parsed("code_seg", "OracleOptions", place))
    scores = read_json(finished / "segmentation" / "oracles.json")["scores"]
    assert scores["our mask, components"]["aji"] == 0


def test_patients_of_another_kind_are_refused(finished, tmp_path):
    """main.py would refuse the run behind it, as its scores are no longer what it wrote."""
    before = metrics_path(results_folder(finished / "segmentation")).read_bytes()
    with pytest.raises(InputError, match="--patient"):
        run_here("code_seg", "test", *arguments(tmp_path, "code_seg", "--patient", "te"))
    assert metrics_path(results_folder(finished / "segmentation")).read_bytes() == before


@pytest.mark.parametrize("restart", [[], ["--restart"]])
@EACH_STAGE
def test_a_run_of_the_other_stage_is_refused(finished, tmp_path, stage, restart):
    """Also for --restart, which would remove its networks."""
    other = {"code_detection": "segmentation", "code_seg": "detection"}[stage]
    before = digest(finished)
    with pytest.raises(InputError, match=f"holds a run of {other}; give another --save-dir"):
        more = ["--save-dir", finished / other, *restart]
        more += ["--detection-results-dir", finished / "detection"] if stage == "code_seg" else []
        run_here(stage, "main", *arguments(tmp_path, stage, *more))
    assert digest(finished) == before


@pytest.mark.parametrize("flag", ["--pretrained", "--start-from"])
@EACH_STAGE
def test_a_restart_with_weights_that_are_not_there_removes_nothing(finished, tmp_path, stage, flag):
    before = digest(finished)
    with pytest.raises(InputError, match="no such file"):
        more = [flag, tmp_path / "typo.pt", "--restart"]
        run_here(stage, "main", *arguments(tmp_path, stage, *more))
    assert digest(finished) == before


@pytest.mark.parametrize("put_back", [True, False])
def test_images_that_change_while_a_step_works_are_noticed(dataset, tmp_path, put_back):
    """Else the scores of a wrong image would stay as those of the run."""
    words = ["--dataset", "tiny", "--data-root", tmp_path / "data", "--root-save-dir", tmp_path]
    given = parsed("code_detection", "Options", [*words, "--no-pretrained", "--device", "cpu"])
    image, done = first(given.data_dir / "images", "*.png"), []

    def work(name, spoils):
        done.append(name)
        if spoils and len(done) == 2:
            turn(image)

    def start():
        run = Run(given.save_dir, given, inputs_of(given))
        try:
            run.do([Step(n, partial(work, n, n == "b")) for n in ("a", "b", "c")])
        finally:
            run.lock.close()

    with pytest.raises(InputError, match="images or labels have changed .*'b' was at work"):
        start()
    assert done == ["a", "b"] and not marker_path(given.save_dir, "b").is_file()
    if not put_back:
        with pytest.raises(InputError, match="images or labels have changed"):
            start()
        return
    turn(image)
    start()
    assert done == ["a", "b", "b", "c"]
