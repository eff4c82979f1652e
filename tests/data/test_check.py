"""The check of a data set finds what would spoil a run, all of it, and names file and remedy."""

import json
import shutil

import numpy as np
import pytest
from conftest import make_dataset

from code_common.files.reading import read_image, read_instances, read_json
from code_common.files.writing import write_instances, write_json
from code_common.files.writing import write_png as png
from data.check import FAIL, WARN, difference_hash, main


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data" / "tiny", train=3, val=1, test=2, shape=(260, 260))


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Findings as (level, text), and the exit status."""

    def run(*more, seconds=1.0):
        command = ["check.py", "--dataset", "tiny", "--data-root", str(tmp_path / "data")]
        command += ["--root-save-dir", str(tmp_path / "out"), "--ratio", "1", *map(str, more)]
        monkeypatch.setattr("sys.argv", command)
        # The time of two training steps is not what these tests are about.
        monkeypatch.setattr("data.check.seconds_per_megapixel", lambda *_: seconds)
        try:
            main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return capsys.readouterr().out, status

    return run


def rewrite(path, change):
    shape = read_image(path.parents[1] / "images" / f"{path.stem.removesuffix('_label')}.png").shape
    write_instances(path, change(read_instances(path, shape[:2])))


def test_a_good_set_passes(folder, check):
    told, status = check()
    assert "0 failures, 1 warnings" in told and status == 1  # r1 of the default row is too large
    assert "a nucleus of mean area has radius 5.9" in told and "--r1 6 --r2 12 --sigma 1.5" in told
    assert "6 images read: 3 train, 1 val, 2 test" in told and "GB are free" in told


def remove_image(folder):
    (folder / "images" / "train1.png").unlink()


def remove_split(folder):
    (folder / "train_val_test.json").unlink()


def truncate(folder):
    path = folder / "images" / "val0.png"
    path.write_bytes(path.read_bytes()[:300])


def truncate_label(folder):
    path = folder / "labels_instance" / "train2_label.tif"
    path.write_bytes(path.read_bytes()[:100])


def turn(folder):
    png(folder / "images" / "train0.png", np.zeros((260, 300, 3), np.uint8))
    png(folder / "labels_instance" / "train0_label.png", np.zeros((300, 260), np.uint16))
    (folder / "labels_instance" / "train0_label.tif").unlink()


def binary(folder):
    rewrite(folder / "labels_instance" / "train0_label.tif", lambda m: (m > 0).astype(np.int32))


def no_points(folder):
    rewrite(folder / "labels_instance" / "train0_label.tif", lambda m: m * 0)


def no_label(folder):
    (folder / "labels_instance" / "train0_label.tif").unlink()


def copy_into_test(folder):
    shutil.copy(folder / "images" / "train0.png", folder / "images" / "test1.png")


def escape(folder):
    split = read_json(folder / "train_val_test.json")
    write_json(folder / "train_val_test.json", {**split, "test": ["../../secret.png"]})


def name_twice(folder):
    split = read_json(folder / "train_val_test.json")
    write_json(folder / "train_val_test.json", {**split, "test": ["train0.png"]})


def nearly_copy(folder):
    image = read_image(folder / "images" / "train0.png").astype(int)
    png(folder / "images" / "test1.png", np.clip(image + 3, 0, 255).astype(np.uint8))


def surplus(folder):
    shutil.copy(folder / "images" / "train0.png", folder / "images" / "more.png")


def scatter(folder):
    def change(m):
        return np.where(m > 0, m % 2 + 1, 0)  # two ids for all nuclei

    rewrite(folder / "labels_instance" / "train0_label.tif", change)


def specks(folder):
    def change(m):
        m = m.copy()
        m[::40, ::40] = np.arange(1000, 1049).reshape(7, 7)
        return m

    rewrite(folder / "labels_instance" / "train0_label.tif", change)


def on_a_line(folder):
    dots = np.zeros((260, 260), np.uint8)
    dots[10:250:40, 30] = 255
    png(folder / "labels_point" / "train0_label_point.png", dots)


def one_point(folder):
    dots = np.zeros((260, 260), np.uint8)
    dots[10, 30] = 255
    png(folder / "labels_point" / "train0_label_point.png", dots)


def small_image(folder):
    png(folder / "images" / "test0.png", np.zeros((90, 90, 3), np.uint8))
    png(folder / "labels_instance" / "test0_label.png", np.zeros((90, 90), np.uint16))
    (folder / "labels_instance" / "test0_label.tif").unlink()


def no_test_masks(folder):
    for path in (folder / "labels_instance").glob("test*"):
        path.unlink()


def no_val(folder):
    split = read_json(folder / "train_val_test.json")
    write_json(folder / "train_val_test.json", {**split, "val": []})


CASES = [
    (remove_image, FAIL, "there is no such image"),
    (remove_split, FAIL, "train_val_test.json"),
    (truncate, FAIL, "val0.png: not a readable"),
    (truncate_label, FAIL, "train2_label.tif: not a readable"),
    (turn, FAIL, "looks rotated"),
    (binary, FAIL, "a binary mask"),
    (no_points, FAIL, "train0: a training image without any point"),
    (no_label, FAIL, "train0: a training image without any point"),
    (copy_into_test, FAIL, "the same pixels as train0 (test and train)"),
    (escape, FAIL, "expected a plain file name"),
    (name_twice, FAIL, "an image belongs to one set"),
    (shutil.rmtree, FAIL, "no such folder"),
    (nearly_copy, WARN, "nearly the same as train0"),
    (surplus, WARN, "1 files of no set: more.png"),
    (scatter, WARN, "2 of 2 ids lie in several pieces"),
    (specks, WARN, "have less than 20 square pixels"),
    (on_a_line, WARN, "points lie on one line"),
    (one_point, WARN, "1 of 1 points at ratio 1"),
    (small_image, WARN, "test0: 1 images are smaller than the patch"),
    (no_test_masks, WARN, "2 test images without masks"),
    (no_val, WARN, "no val images"),
]


@pytest.mark.parametrize(
    ("damage", "level", "text"), CASES, ids=lambda v: getattr(v, "__name__", "")
)
def test_findings(folder, check, damage, level, text):
    damage(folder)
    told, status = check()
    (line,) = [line for line in told.splitlines() if text in line]
    assert line.startswith(level) and status == (2 if level == FAIL else 1)
    assert FAIL not in told or level == FAIL


def test_all_findings_at_once_also_as_json(folder, check):
    for damage in (remove_image, truncate, no_points):
        damage(folder)
    told, status = check("--json")
    findings = json.loads(told)
    assert status == 2 and [f["level"] for f in findings].count(FAIL) == 3
    assert all(f["file"] and f["fix"] for f in findings if f["level"] == FAIL)


def test_in_brief_what_passed_before_is_not_read_again(tmp_path, folder, check):
    stamp = tmp_path / "out" / "stamp"
    first, status = check("--brief", stamp)
    assert "PASS" not in first and "warnings" in first and status == 0 and stamp.is_file()
    told, status = check("--brief", stamp)
    assert status == 0 and "warnings" not in told and told.count("[plan] ") == 2
    no_points(folder)
    told, status = check("--brief", stamp)
    assert "without any point" in told and status == 2


def test_the_plan_counts_what_is_left_to_do(tmp_path, folder, check):
    """With a second a megapixel: three passes of a step, the repeats, and less what is done."""
    more = ["--epochs", 6, "--val-every", 6, "--patch-size", 260, "--input-size", 100,
            "--tile", 260, "--overlap", 0, "--detection", "--rounds", 0, "--seg",
            "--crf-epochs", 0]  # fmt: skip
    image = 0.26**2  # megapixels; val is seen for validation, detection, test and selection
    detection = 3 * 6 * 3 * 0.1**2 + image * (1 + (3 + 0) + (1 + 2))
    seg = 3 * 6 * 3 * 0.1**2 + image * (1 + 1 + 2 * 2)
    total = 13 * (detection + seg)  # at ten minutes a megapixel, and 30 % beside the network
    told, _ = check(*more, seconds=600)
    assert f"about {total:.0f} min for a repeat" in told
    told, _ = check("--repeats", 5, *more, seconds=600)
    assert f"about {5 * total / 60:.1f} h for 5 repeats" in told
    done = tmp_path / "out" / "tiny" / "ratio_1" / "repeat_1" / "detection" / ".done"
    done.mkdir(parents=True)
    for name in ("prepare", "train round 0", "detect", "test", "pictures"):
        (done / f"{name}.json").write_text("{}")
    told, _ = check(*more, seconds=600)
    assert f"about {13 * seg:.0f} min for a repeat; 5 of 10 steps are done" in told


def test_like_images_have_like_hashes():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 8, 3), np.uint8)
    image = coarse.repeat(32, 0).repeat(32, 1)
    noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    other = rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(32, 0).repeat(32, 1)
    same = (difference_hash(image) != difference_hash(noisy)).sum()
    assert same < 60 < (difference_hash(image) != difference_hash(other)).sum()


def test_run_sh_stops_before_training(tmp_path, folder):
    from test_scripts import bash

    truncate(folder)
    done = bash("--dataset", "tiny", "--data-root", tmp_path / "data",
                "--root-save-dir", tmp_path / "out")  # fmt: skip
    assert done.returncode == 2 and "val0.png: not a readable" in done.stdout
    assert "== tiny" not in done.stdout
