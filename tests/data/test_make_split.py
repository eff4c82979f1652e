"""Splits of a data set: every image once, patients together, the same from the same seed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_common.files.data_set import read_split
from code_common.files.writing import write_png
from data.make_split import PARTS, choose_fold, group_names, share_out


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    shares=st.lists(st.floats(0.05, 1), min_size=2, max_size=5),
    seed=st.integers(0, 9),
)
def test_every_image_is_in_one_set_and_groups_stay_together(sizes, shares, seed):
    groups = [[f"{g}_{k}" for k in range(size)] for g, size in enumerate(sizes)]
    sets = share_out(groups, shares, np.random.default_rng(seed))
    assert sorted(sum(sets, [])) == sorted(sum(groups, []))
    for group in groups:
        assert sum(not set(group).isdisjoint(names) for names in sets) == 1
    if len(groups) >= len(shares):
        assert all(sets)
    wanted = np.array(shares) / sum(shares) * sum(sizes)
    actual = np.array([len(names) for names in sets])
    assert (actual - wanted < max(sizes) + len(shares)).all()


def test_what_the_pattern_finds_is_the_group():
    names = ["A-1_x.png", "A-1_y.png", "B-1_x.png"]
    assert group_names(names, r"^(\w-\d)") == [names[:2], names[2:]]
    assert group_names(names, r"-1_.") == [[names[0], names[2]], [names[1]]]
    assert group_names(names, r"(A)-|(B)-") == [names[:2], names[2:]]
    assert group_names(names, None) == [[name] for name in names]


def test_the_fold_after_the_test_is_for_validation():
    groups = [["a"], ["b"], ["c"], ["d"]]

    def fold(number):
        return choose_fold(groups, 4, number, np.random.default_rng(0))

    tests = [fold(number)[2] for number in (1, 2, 3, 4)]
    vals = [fold(number)[1] for number in (1, 2, 3, 4)]
    assert vals == tests[1:] + tests[:1] and sorted(sum(tests, [])) == ["a", "b", "c", "d"]


@pytest.fixture
def images(tmp_path):
    for k in range(10):
        write_png(tmp_path / "images" / f"p{k // 2}_{k}.png", np.zeros((4, 4, 3), np.uint8))
    return tmp_path


@pytest.fixture
def make_split(run_script, images):
    """Run the script on these images."""

    def run(*arguments, code=0):
        return run_script("data/make_split.py", "--data-dir", images, *arguments, code=code)

    return run


def test_shares_are_sixty_twenty_twenty(make_split):
    assert "6 train, 2 val, 2 test; 10 groups" in make_split().stdout


def test_the_seed_decides(make_split, images):
    make_split()
    first = read_split(images)
    make_split("--overwrite")
    assert read_split(images) == first
    make_split("--overwrite", "--seed", 2)
    assert read_split(images) != first


def test_images_of_other_kinds_are_in_no_set_and_told(make_split, images):
    assert "in no set" not in make_split().stdout
    for name in ("scan.svs", "photo.WEBP", "notes.txt"):
        (images / "images" / name).write_bytes(b"")
    printed = make_split("--overwrite").stdout
    assert "10 groups\nin no set, since only PNG, TIFF, BMP and JPEG are read: 2 (" in printed
    assert "photo.WEBP" in printed and "scan.svs" in printed and "notes" not in printed


def test_masks_beside_the_images_are_in_no_set_and_told(make_split, images):
    for name in ("p0_0_mask.png", "p0_1_cp_masks.tif", "u_mask.png"):
        (images / "images" / name).write_bytes(b"")
    printed = make_split().stdout
    assert "11 groups\ntaken for masks of the images beside them: 2 (p0_0_mask.png, " in printed
    assert "u_mask.png" in sum(read_split(images).values(), [])


@pytest.mark.parametrize("damage", ["{x", "[]"])
def test_a_damaged_split_that_is_replaced_is_told(make_split, images, damage):
    (images / "train_val_test.json").write_text(damage)
    printed = make_split("--overwrite").stdout
    assert "in place of a split that could not be used: " in printed
    assert "train_val_test.json: " in printed.splitlines()[1]


def test_what_a_new_split_changes_is_told(make_split, images):
    make_split()
    assert "in place of" not in make_split("--overwrite").stdout
    split = read_split(images)
    split["train"][0], split["test"][0] = split["test"][0], split["train"][0]
    split["val"].append("gone.png")
    (images / "train_val_test.json").write_text(json.dumps({**split, "testA": [], "testB": []}))
    said = "before: without its groups testA, testB, 2 images in another set, 1 image in none\n"
    assert f"in place of the split {said}" in make_split("--overwrite").stdout


def test_a_set_that_stays_empty_is_told(make_split):
    printed = make_split("--group", "p").stdout
    assert "10 train, 0 val, 0 test; 1 group, too few to have any for val and test\n" in printed
    assert "too few" not in make_split("--shares", 1, 0, 0, "--overwrite").stdout


def test_a_split_that_is_there_is_kept(make_split, images):
    make_split()
    first = read_split(images)
    assert "--overwrite replaces it" in make_split("--seed", 2, code=2).stderr
    assert read_split(images) == first


def test_folds_test_every_image_once(make_split, images):
    tested = []
    for fold in range(1, 6):
        make_split("--folds", 5, "--fold", fold, "--group", r"^p\d", "--overwrite")
        split = read_split(images)
        assert [len(split[part]) for part in PARTS] == [6, 2, 2]
        assert len({name[:2] for name in split["test"]}) == 1
        tested += split["test"]
    assert len(set(tested)) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", 2], "--folds"),
        (["--folds", 4, "--fold", 5], "--fold"),
        (["--group", "("], "regular expression"),
        (["--group", "zzz"], "finds nothing"),
        (["--group", "(z*)"], "finds nothing"),
        (["--data-dir", "nope"], "nope/images: no such folder"),
        (["--shares", 0, 1, 1], "--shares"),
        (["--fold", 1], "--fold needs --folds"),
        (["--folds", 5, "--shares", 0.6, 0.2, 0.2], "--shares means nothing to --folds"),
    ],
)
def test_wrong_arguments(make_split, images, arguments, message):
    done = make_split(*arguments, code=2)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (images / "train_val_test.json").exists()


def test_a_link_that_is_replaced_is_told(make_split, images):
    (images / "other.json").write_text("{}")
    (images / "train_val_test.json").symlink_to("other.json")
    assert "; 10 groups, in place of the link to other.json\n" in make_split("--overwrite").stdout
    assert (images / "other.json").read_text() == "{}"


def test_two_images_of_one_name_are_refused(make_split, images):
    """Both would have the labels and the results of one."""
    (images / "images" / "p0_0.bmp").write_bytes((images / "images" / "p0_0.png").read_bytes())
    assert "p0_0.bmp, p0_0.png share one name" in make_split(code=2).stderr
    assert not (images / "train_val_test.json").exists()


def test_a_name_with_a_line_break_stays_on_its_line(make_split, images):
    write_png(images / "images" / "x\ny.png", np.zeros((4, 4, 3), np.uint8))
    done = make_split("--group", r"^p\d", code=2)
    make_split("--group", ".")
    assert done.stderr.count("\n") == 1
    assert "x\ny.png" in sum(read_split(images).values(), [])
