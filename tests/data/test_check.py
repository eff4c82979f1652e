"""The check of a data set finds all that would spoil a run, and names the file and the remedy."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from conftest import make_dataset, run_process

from code_common.arrays import points_from_instances
from code_common.config import as_json
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.images import read_image, read_instances
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_path, options_path, stage_folder
from code_common.files.writing import write_instances, write_json, write_png, write_points
from data.check import check_named_files, main, read_arguments
from data.findings import FAIL, WARN, check_dots, check_image, difference_hash, failure

SIDE = 260  # of the images: as large as a patch
SPLIT = "train_val_test.json"


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data" / "tiny", train=3, val=1, test=2, shape=(SIDE, SIDE))


def request(home, *more):
    """The request to check that folder at ratio 1."""
    words = ["--dataset", "tiny", "--data-root", home / "data", "--ratio", 1]
    words += ["--root-save-dir", home / "out", *more]
    return read_arguments([str(word) for word in words])


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Check that folder at ratio 1: what is printed, and the exit status."""

    def run(*more, seconds=1.0):
        # The time of two training steps is not what these tests are about.
        monkeypatch.setattr("code_common.runs.estimate.seconds_per_megapixel", lambda *_: seconds)
        status = main(request(tmp_path, *more))
        return capsys.readouterr().out, status

    return run


def label_path(folder, name):
    return folder / "labels_instance" / f"{name}_label.tif"


def change_label(folder, change):
    """Replace the label of the first training image by what `change` makes of it."""
    path = label_path(folder, "train0")
    write_instances(path, change(read_instances(path, (SIDE, SIDE))))


def change_split(folder, **sets):
    write_json(folder / SPLIT, {**read_json(folder / SPLIT), **sets})


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_a_good_set_passes(folder, check):
    """Apart from r1, which is too large for nuclei of this size."""
    printed, status = check()
    assert "0 failures, 1 warning\n" in printed and status == 1
    assert "a nucleus of mean area has radius 5.9" in printed
    assert "--r1 6 --r2 12 --sigma 1.5 --seg --merge-radius 6" in printed
    assert "6 images read: 3 train, 1 val, 2 test" in printed and "GB are free" in printed


def test_a_set_without_findings_has_status_0(folder, check):
    printed, status = check("--detection", "--r1", 6)
    assert "0 failures, 0 warnings" in printed and status == 0


def images_in_a_subfolder(folder):
    """And in one below it; a folder without images is none of them."""
    (folder / "images" / "notes").mkdir()
    for name in ("slide 1/a.png", "slide 1/more/b.JPG", "slide 1/more/c.svs"):
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        (folder / "images" / name).write_bytes(b"")


def remove_image(folder):
    (folder / "images" / "train1.png").unlink()


def remove_split(folder):
    (folder / SPLIT).unlink()


def cut_image(folder):
    truncate(folder / "images" / "val0.png", 300)


def cut_label(folder):
    truncate(label_path(folder, "train2"), 100)


def turn(folder):
    write_png(folder / "images" / "train0.png", np.zeros((260, 300, 3), np.uint8))
    label_path(folder, "train0").unlink()
    write_png(label_path(folder, "train0").with_suffix(".png"), np.zeros((300, 260), np.uint16))


def binary(folder):
    change_label(folder, lambda label: (label > 0).astype(np.int32))


def no_points(folder):
    change_label(folder, np.zeros_like)


def no_label(folder):
    label_path(folder, "train0").unlink()


def copy_into_test(folder):
    shutil.copy(folder / "images" / "train0.png", folder / "images" / "test1.png")


def escape(folder):
    change_split(folder, test=["../../secret.png"])


def name_twice(folder):
    change_split(folder, test=["train0.png"])


def nearly_copy(folder):
    image = read_image(folder / "images" / "train0.png").astype(int)
    write_png(folder / "images" / "test1.png", np.clip(image + 3, 0, 255).astype(np.uint8))


def surplus(folder):
    shutil.copy(folder / "images" / "train0.png", folder / "images" / "more.png")


def other_kind(folder):
    (folder / "images" / "more.CZI").write_bytes(b"ZISRAWFILE")


def scatter(folder):
    """One id for two of the five nuclei."""
    change_label(folder, lambda label: np.minimum(label, 4))


def classes(folder):
    change_label(folder, lambda label: np.where(label > 0, label % 2 + 1, 0))


def black_on_white(folder):
    """As ImageJ writes it with an inverting table of colours."""
    dots = np.full((SIDE, SIDE), 255, np.uint8)
    dots[10:250:40, 30] = 0
    write_png(folder / "labels_point" / "train0_label_point.png", dots)


def specks(folder):
    def add_specks(label):
        label = label.copy()
        label[::40, ::40] = np.arange(1000, 1049).reshape(7, 7)
        return label

    change_label(folder, add_specks)


def point_label(folder, rows):
    dots = np.zeros((SIDE, SIDE), np.uint8)
    dots[rows, 30] = 255
    write_png(folder / "labels_point" / "train0_label_point.png", dots)


def on_a_line(folder):
    point_label(folder, slice(10, 250, 40))


def one_point(folder):
    point_label(folder, 10)


def small_image(folder):
    write_png(folder / "images" / "test0.png", np.zeros((90, 90, 3), np.uint8))
    label_path(folder, "test0").unlink()
    write_png(label_path(folder, "test0").with_suffix(".png"), np.zeros((90, 90), np.uint16))


def rename_label(folder, name, new):
    label_path(folder, name).rename(folder / "labels_instance" / new)


def two_labels(folder):
    shutil.copy(label_path(folder, "train0"), folder / "labels_instance" / "train0.tif")


def label_of_no_image(folder):
    shutil.copy(label_path(folder, "train0"), folder / "labels_instance" / "TRAIN0_label.tif")


def background_with_an_id(folder):
    change_label(folder, lambda label: np.maximum(label, 1))


def move(folder):
    change_label(folder, lambda label: np.roll(label, (10, 10), (0, 1)))


def table_of_points(folder):
    write_points(folder / "labels_point" / "train0.csv", np.array([[5, 5]]))


def half_covered(folder):
    def add_region(label):
        label = label.copy()
        label[:150] = 9999
        return label

    change_label(folder, add_region)


def as_array(folder):
    """A label as a NumPy array, which is imported first."""
    path = label_path(folder, "train2")
    np.save(folder / "labels_instance" / "train2.npy", read_instances(path, (SIDE, SIDE)))
    path.unlink()


def split_of_no_json(folder):
    (folder / SPLIT).write_text("{")


def draw_dots(folder, dots):
    """Disks of some radius in pixels at (row, column)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    near = [(y - row) ** 2 + (x - col) ** 2 <= radius**2 for row, col, radius in dots]
    label = np.any(near, axis=0).astype(np.uint8) * 255
    write_png(folder / "labels_point" / "train0_label_point.png", label)


def touching_dots(folder):
    label_path(folder, "train0").unlink()
    draw_dots(folder, [(30, 30, 4), (30, 38, 4), (90, 50, 4), (200, 90, 4), (130, 220, 4)])


def a_val_mask_is_missing(folder):
    change_split(folder, val=["val0.png", "test0.png", "test1.png"], test=["train2.png"])
    change_split(folder, train=["train0.png", "train1.png"])
    label_path(folder, "test0").unlink()


def no_test_masks(folder):
    for path in (folder / "labels_instance").glob("test*"):
        path.unlink()


def no_val(folder):
    change_split(folder, val=[])


def group_beyond_test(folder):
    change_split(folder, testA=["test0.png", "train1.png"])


def another_spelling(folder):
    change_split(folder, val=[], Validation=["val0.png"])


def capitals(folder):
    change_split(folder, test=[], Test=["test0.png", "test1.png"])


def points_elsewhere(folder):
    """In the gaps between the nuclei of the map."""
    background = read_instances(label_path(folder, "train0"), (SIDE, SIDE)) == 0
    dots = np.zeros((SIDE, SIDE), np.uint8)
    dots[::40, ::40] = background[::40, ::40] * 255
    write_png(folder / "labels_point" / "train0_label_point.png", dots)


def folder_of_another_name(folder):
    (folder / "labels_points").mkdir()


def folder_in_capitals(folder):
    (folder / "Label_Instances").mkdir()


def masks_beside(folder):
    shutil.copy(label_path(folder, "train0"), folder / "images" / "train0_mask.tif")
    shutil.copy(label_path(folder, "train1"), folder / "images" / "train1_cp_masks.tif")


def mark_twice(folder):
    """One of five nuclei."""
    label_path(folder, "train0").unlink()
    draw_dots(folder, [(30, 30, 0), (33, 34, 0), (90, 50, 0), (200, 90, 0), (130, 220, 0)])


CASES = [
    (masks_beside, WARN, "taken for masks of the images beside them: 2 (train0_mask.tif, "),
    (mark_twice, WARN, "train0: 2 of 5 points of the set lie nearer than 5.5 px to another"),
    (group_beyond_test, WARN, "1 image of the group 'testA' is not in 'test', so not scored"),
    (another_spelling, WARN, "the list 'Validation' is taken for a group of test images"),
    (capitals, WARN, "the list 'Test' is taken for a group of test images -> call it 'test'"),
    (points_elsewhere, WARN, "points lie beside the nuclei of its instance map"),
    (folder_of_another_name, WARN, "a folder that is not read; labels"),
    (folder_in_capitals, WARN, "did you mean labels_instance?"),
    (remove_image, FAIL, "there is no such image"),
    (remove_split, FAIL, "train_val_test.json"),
    (cut_image, FAIL, "val0.png: not a readable"),
    (cut_label, FAIL, "train2_label.tif: not a readable"),
    (two_labels, FAIL, "train0_label.tif: labels of one image -> keep one of them"),
    (as_array, FAIL, "without any point; looked for labels_instance/train2.png or .tif"),
    (split_of_no_json, FAIL, "not a readable JSON file"),
    (turn, FAIL, "looks rotated"),
    (binary, FAIL, "a binary mask"),
    (classes, FAIL, "a map of classes"),
    (background_with_an_id, FAIL, "the background must be 0"),
    (black_on_white, FAIL, "expected 0 outside of the points"),
    (no_points, FAIL, "train0: a training image without any point"),
    (no_label, FAIL, "train0: a training image without any point"),
    (copy_into_test, FAIL, "the same pixels as train0 (test and train)"),
    (escape, FAIL, "expected a plain file name"),
    (name_twice, FAIL, "an image belongs to one set"),
    (shutil.rmtree, FAIL, "no such folder"),
    (nearly_copy, WARN, "nearly the same as train0"),
    (surplus, WARN, "1 file of no set: more.png"),
    (other_kind, WARN, "1 image of a kind that is not read: more.CZI"),
    (label_of_no_image, WARN, "1 label of no image: TRAIN0_label.tif"),
    (move, WARN, "hardly darker than the rest"),
    (table_of_points, WARN, "1 file of another kind, not read: train0.csv"),
    (half_covered, WARN, "of the image -> the background has to be 0"),
    (scatter, WARN, "1 of 4 ids lie in several pieces"),
    (specks, WARN, "have less than 20 square pixels"),
    (on_a_line, WARN, "points lie on one line"),
    (one_point, WARN, "1 of 1 points at ratio 1"),
    (small_image, WARN, "test0: 1 image is smaller than the patch"),
    (no_test_masks, WARN, "2 test images without masks"),
    (a_val_mask_is_missing, WARN, "2 of 3 val images have masks; none is used to choose"),
    (touching_dots, WARN, "train0: 1 of 4 dots are longer than 14 px"),
    (images_in_a_subfolder, WARN, "3 images in 1 folder, not read: slide 1"),
    (no_val, WARN, "no val images"),
]


@pytest.mark.parametrize(
    ("damage", "level", "text"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_findings(folder, check, damage, level, text):
    """One damage is one finding of its level, and no other finding is worse."""
    damage(folder)
    printed, status = check()
    (line,) = [line for line in printed.splitlines() if text in line]
    assert line.startswith(level) and status == (2 if level == FAIL else 1)
    file, _, message = line.removeprefix(f"{level}  ").partition(": ")
    assert f"{file}: " not in message


@pytest.mark.parametrize("new", ["train0.tif", "train0_MASK.TIF", "train0_cp_masks.tiff"])
def test_a_label_is_found_whatever_its_ending(folder, check, new):
    rename_label(folder, "train0", new)
    printed, status = check("--detection", "--r1", 6)
    assert "0 failures, 0 warnings" in printed and status == 0


def test_groups_of_test_images_and_points_on_the_nuclei_are_no_findings(folder, check):
    change_split(folder, testA=["test0.png"], testB=["test1"])
    truth = read_instances(label_path(folder, "train0"), (SIDE, SIDE))
    dots = np.zeros((SIDE, SIDE), np.uint8)
    for row, col in points_from_instances(truth)[::2]:
        dots[row, col] = 255
    write_png(folder / "labels_point" / "train0_label_point.png", dots)
    printed, status = check("--detection", "--r1", 6)
    assert "0 failures, 0 warnings" in printed and status == 0


def odd_dots(folder):
    """What is said of the dots of the first training image at r1 11."""
    label = folder / "labels_point" / "train0_label_point.png"
    image = check_image(ImageFiles("train0", folder / "images" / "train0.png", None, label))
    return [finding.message.partition(";")[0] for finding in check_dots([image], 11)]


@pytest.mark.parametrize(
    ("radii", "said"),
    [
        ((0, 0, 0, 0), []),
        ((5, 5, 4, 5), []),  # as a brush draws them, and a hand
        ((11, 11, 11, 11), []),  # as large as nuclei
        ((15, 0, 0, 0), ["1 of 4 dots are longer than 11 px"]),
        ((15, 15, 15, 15), ["4 of 4 dots are longer than 23 px"]),
    ],
)
def test_dots_are_at_most_as_large_as_nuclei(folder, radii, said):
    places = (30, 30), (90, 50), (200, 90), (130, 220)
    draw_dots(folder, [(*place, radius) for place, radius in zip(places, radii, strict=True)])
    assert odd_dots(folder) == said


def test_a_split_may_name_what_is_called_a_mask(folder, check):
    write_png(folder / "images" / "train0_mask.png", np.full((SIDE, SIDE, 3), 250, np.uint8))
    change_split(folder, testA=["train0_mask"], test=["test0.png", "test1.png", "train0_mask.png"])
    assert "taken for masks" not in check()[0]


def killed(files):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_that_is_killed_is_an_error_in_one_line(folder, check, monkeypatch):
    change_split(folder, train=[f"train{k}.png" for k in range(8)])
    for k in range(3, 8):
        shutil.copy(folder / "images" / "train0.png", folder / "images" / f"train{k}.png")
    monkeypatch.setattr("data.findings.check_image", killed)
    monkeypatch.setattr("data.findings.cores", lambda: 2)
    with pytest.raises(InputError, match="images: a process that read these images was killed"):
        check()


SPOTS = np.random.default_rng(0).integers(9, SIDE - 9, (12, 2))


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (SPOTS, False),
        (SPOTS[:, ::-1], True),  # x and y swapped
        (SPOTS // 2, True),  # of another scale
        (SPOTS * (1, -1) % SIDE, True),  # mirrored
        (SPOTS[:9, ::-1], False),  # too few to tell
    ],
)
def test_points_lie_where_the_image_is_dark(tmp_path, points, said):
    image = np.full((SIDE, SIDE, 3), 220, np.uint8)
    for row, col in SPOTS:
        image[row - 6 : row + 7, col - 6 : col + 7] = 90
    dots = np.zeros((SIDE, SIDE), np.uint8)
    dots[tuple(points.T)] = 255
    write_png(tmp_path / "a.png", image)
    write_png(tmp_path / "a_label_point.png", dots)
    check = check_image(ImageFiles("a", tmp_path / "a.png", None, tmp_path / "a_label_point.png"))
    assert ["hardly darker" in finding.message for finding in check.findings] == [True] * said


def test_dots_that_touch_may_have_numbers_of_their_own(folder):
    dots = np.zeros((SIDE, SIDE), np.uint8)
    for number, (row, col) in enumerate([(30, 30), (30, 40), (90, 50), (200, 90)], 1):
        dots[row : row + 10, col : col + 10] = number
    write_png(folder / "labels_point" / "train0_label_point.png", dots)
    assert odd_dots(folder) == []


def remedies(printed):
    """The commands that the lines of a check name, as words."""
    lines = [line.partition(" -> ")[2] for line in printed.splitlines()]
    return [line[line.index("python ") :].split()[1:] for line in lines if "python " in line]


@pytest.mark.parametrize("damage", [remove_split, split_of_no_json, name_twice, as_array])
def test_the_command_that_is_named_mends_the_fault(folder, check, run_script, damage):
    damage(folder)
    printed, status = check()
    (words,) = remedies(printed)
    assert status == 2
    run_script(*words)
    printed, status = check("--detection", "--r1", 6)
    assert "0 failures, 0 warnings" in printed and status == 0


def test_a_label_that_is_no_instance_map_is_imported_anew(tmp_path, folder, check, run_script):
    good = read_instances(label_path(folder, "train0"), (SIDE, SIDE))
    binary(folder)
    printed, _ = check()
    (words,) = remedies(printed)
    assert "-> move it elsewhere" in printed
    label_path(folder, "train0").unlink()
    write_instances(tmp_path / "exported" / "train0.tif", good)
    run_script(*[word.replace("EXPORTED", str(tmp_path / "exported")) for word in words])
    assert check()[1] == 1


def test_options_that_are_named_mend_what_is_small(folder, check):
    small_image(folder)
    printed, _ = check("--detection", "--r1", 6)
    options = printed.partition("they are mirrored; ")[2].partition(" avoids")[0]
    assert options == "--patch-size 90 --input-size 90"
    assert "smaller than the patch" not in check(*options.split())[0]


def test_all_findings_come_at_once_also_as_json(folder, check):
    for damage in (remove_image, cut_image, no_points):
        damage(folder)
    printed, status = check("--json")
    failures = [finding for finding in json.loads(printed) if finding["level"] == FAIL]
    assert status == 2 and len(failures) == 3
    assert all(finding["file"] and finding["fix"] for finding in failures)


def without_plan(done):
    """What was printed, without the plan (it measures speed and disk now), and the status."""
    return [line for line in done[0].splitlines() if not line.startswith("[plan] ")], done[1]


def test_in_brief_a_set_that_passed_is_not_read_again(tmp_path, folder, check, monkeypatch):
    stamp, good = tmp_path / "out" / "stamp", ("--detection", "--r1", 6)
    first, status = check("--brief", stamp, *good)
    assert "PASS" not in first and first.count("[plan] ") == 2 and status == 0
    monkeypatch.setattr("data.check.check_data_set", None)  # reads nothing
    assert without_plan(check("--brief", stamp, *good)) == without_plan((first, 0))


def test_in_brief_a_warning_is_shown_each_time(tmp_path, folder, check, monkeypatch):
    stamp = tmp_path / "out" / "stamp"
    first, status = check("--brief", stamp)
    assert "a nucleus of mean area has radius" in first and "1 warning\n" in first and status == 0
    with monkeypatch.context() as patched:
        patched.setattr("data.check.check_data_set", None)  # reads nothing
        assert without_plan(check("--brief", stamp)) == without_plan((first, 0))
    stamp.write_text("what an older version wrote")
    assert without_plan(check("--brief", stamp)) == without_plan((first, 0))


def test_in_brief_a_folder_that_was_added_is_seen(tmp_path, folder, check):
    stamp, good = tmp_path / "out" / "stamp", ("--detection", "--r1", 6)
    check("--brief", stamp, *good)
    images_in_a_subfolder(folder)
    assert "3 images in 1 folder" in check("--brief", stamp, *good)[0]


@pytest.mark.parametrize("linked", ["", "images", "labels_instance"])
def test_in_brief_a_set_that_changed_is_read_again(tmp_path, folder, check, linked):
    """Also behind a link."""
    stamp = tmp_path / "out" / "stamp"
    if linked:
        (folder / linked).rename(tmp_path / "elsewhere")
        (folder / linked).symlink_to(tmp_path / "elsewhere")
    check("--brief", stamp, "--detection", "--r1", 6)
    assert stamp.is_file()
    no_points(folder)
    printed, status = check("--brief", stamp, "--detection", "--r1", 6)
    assert "without any point" in printed and status == 2


# A run whose work can be added up by hand, in megapixels through the network.
EPOCHS, CROP = 6, 100
TRAIN, VAL, TEST = 3, 1, 2  # images of each set
RUN_OPTIONS = [
    *("--epochs", EPOCHS, "--val-every", EPOCHS, "--patch-size", SIDE, "--input-size", CROP),
    *("--tile", SIDE, "--overlap", 0, "--detection", "--rounds", 0, "--seg", "--crf-epochs", 0),
]
IMAGE = 1e-6 * SIDE**2
TRAINING = 3 * EPOCHS * TRAIN * 1e-6 * CROP**2 + VAL * IMAGE  # three passes of a step; validation
DETECTION = TRAINING + TRAIN * IMAGE + (VAL + TEST) * IMAGE  # detects, tests
SEG = TRAINING + VAL * IMAGE + 2 * TEST * IMAGE  # selects, tests twice
SECONDS = 600  # of a megapixel
MINUTES = SECONDS / 60 * 1.3  # 30 % more for what is not the network


def test_the_plan_adds_up_what_is_to_be_done(folder, check):
    printed, _ = check(*RUN_OPTIONS, seconds=SECONDS)
    assert f"about {MINUTES * (DETECTION + SEG):.0f} min for a repeat" in printed


def test_the_plan_counts_the_repeats(folder, check):
    printed, _ = check("--repeats", 5, *RUN_OPTIONS, seconds=SECONDS)
    assert f"about {5 * MINUTES * (DETECTION + SEG) / 60:.1f} h for 5 repeats" in printed


def test_the_plan_leaves_out_what_is_done(tmp_path, folder, check):
    stage = stage_folder(tmp_path / "out", "tiny", 1, 1, "detection")
    for step in ("prepare", "train round 0", "detect", "test", "pictures"):
        write_json(marker_path(stage, step), {"seconds": 1})
    options = as_json(request(tmp_path, *RUN_OPTIONS).detection)
    write_json(options_path(stage), {"options": options})
    printed, _ = check(*RUN_OPTIONS, seconds=SECONDS)
    assert f"about {MINUTES * SEG:.0f} min for a repeat; 5 of 10 steps are done" in printed


def test_like_images_have_like_hashes():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (2, 8, 8, 3), np.uint8)
    image, other = coarse.repeat(32, 1).repeat(32, 2)
    noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    different_bits = [(difference_hash(image) != difference_hash(i)).sum() for i in (noisy, other)]
    assert different_bits[0] < 60 < different_bits[1]


def test_help_says_whose_options_it_takes(capsys):
    with pytest.raises(SystemExit) as stopped:
        read_arguments(["--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and "[--detection OPTIONS...] [--seg OPTIONS...]" in text


def test_options_behind_a_stage_are_of_that_stage():
    request = read_arguments("--epochs 5 --detection --r1 7 --seg --epochs 9 --alpha 0.3".split())
    assert (request.detection.epochs, request.detection.r1) == (5, 7)
    assert (request.seg.epochs, request.seg.alpha) == (9, 0.3)


def test_both_is_a_value_like_any_other():
    assert read_arguments(["--dataset", "both"]).seg.dataset == "both"


def test_imagenet_weights_of_stage_2_alone_are_looked_for(folder, tmp_path, monkeypatch):
    """Where there is no network, it would be found after all of stage 1."""
    wanted = []
    monkeypatch.setattr(
        "data.check.load_first_weights", lambda network, options, stage: wanted.append(stage)
    )
    imagenet = ["--pretrained", "imagenet"]
    check_named_files(request(tmp_path, "--detection", "--no-pretrained", "--seg", *imagenet))
    assert wanted == ["segmentation"]
    check_named_files(request(tmp_path, *imagenet))  # stage 1 says it at once
    assert wanted == ["segmentation"]


def test_what_may_not_be_read_need_not_be_made_anew(folder, monkeypatch):
    path = label_path(folder, "train0")
    error = InputError(f"{path}: not a readable image (Permission denied)")
    assert failure(error, "export it again").fix == "export it again"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert failure(error, "export it again").fix == "give yourself the right to read it"


def test_results_that_cannot_be_written_are_a_failure(folder, check, monkeypatch):
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.R_OK and access(path, mode))
    printed, status = check("--no-pretrained")
    assert status == 2 and "results cannot be written here" in printed


def test_run_sh_stops_before_training(tmp_path, folder):
    cut_image(folder)
    place = ["--data-root", tmp_path / "data", "--root-save-dir", tmp_path / "out"]
    done = run_process("run.sh", "--dataset", "tiny", *place, cwd=tmp_path)
    assert done.returncode == 2 and "val0.png: not a readable" in done.stdout
    assert "== tiny" not in done.stdout
