"""Splits of a data set: every image once, patients together, the same from the same seed."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))

from make_split import grouped, share_out  # noqa: E402

from code_common.files.data_set import read_split  # noqa: E402
from code_common.files.writing import write_png  # noqa: E402


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
        assert sum(not set(group).isdisjoint(each) for each in sets) == 1
    if len(groups) >= len(shares):
        assert all(sets)
    wanted = np.array(shares) / sum(shares) * sum(sizes)
    assert (np.array([len(s) for s in sets]) - wanted < max(sizes) + len(shares)).all()


def test_what_the_pattern_finds_is_the_group():
    names = ["A-1_x.png", "A-1_y.png", "B-1_x.png"]
    assert grouped(names, r"^(\w-\d)") == [names[:2], names[2:]]
    assert grouped(names, r"-1_.") == [[names[0], names[2]], [names[1]]]
    assert grouped(names, None) == [[n] for n in names]


@pytest.fixture
def images(tmp_path):
    for k in range(10):
        write_png(tmp_path / "images" / f"p{k // 2}_{k}.png", np.zeros((4, 4, 3), np.uint8))
    return tmp_path


def test_shares_and_seed(run_script, images):
    out = run_script("data/make_split.py", "--data-dir", images).stdout
    assert "6 train, 2 val, 2 test; 10 groups" in out
    first = read_split(images)
    run_script("data/make_split.py", "--data-dir", images, code=2)
    run_script("data/make_split.py", "--data-dir", images, "--overwrite")
    assert read_split(images) == first
    run_script("data/make_split.py", "--data-dir", images, "--overwrite", "--seed", 2)
    assert read_split(images) != first


def test_folds_test_every_image_once(run_script, images):
    tested = []
    for fold in range(1, 6):
        run_script(
            "data/make_split.py", "--data-dir", images, "--folds", 5, "--fold", fold,
            "--group", r"^p\d", "--overwrite",
        )  # fmt: skip
        split = read_split(images)
        assert [len(split[part]) for part in ("train", "val", "test")] == [6, 2, 2]
        assert len({name[:2] for name in split["test"]}) == 1
        tested += split["test"]
    assert len(set(tested)) == 10


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--folds", 2], "--folds"),
        (["--folds", 4, "--fold", 5], "--fold"),
        (["--group", "("], "regular expression"),
        (["--group", "zzz"], "finds nothing"),
        (["--shares", 0, 1, 1], "--shares"),
    ],
)
def test_wrong_arguments(run_script, images, arguments, told):
    done = run_script("data/make_split.py", "--data-dir", images, *arguments, code=2)
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not (images / "train_val_test.json").exists()
