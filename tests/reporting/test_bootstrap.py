"""Intervals over images and patients, against known answers."""

from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_common.errors import InputError
from code_common.reporting.bootstrap import intervals, mean_of, paired, patients, resamples


def test_patients_are_found_in_names():
    names = ["Liver_TCGA-18-5592-01Z", "Liver_TCGA-18-5592-02Z", "TCGA-21-5784-01A", "mine"]
    expected = ["TCGA-18-5592", "TCGA-18-5592", "TCGA-21-5784", "mine"]
    assert patients(names, "TCGA-..-[^-]+") == expected
    assert patients(["p1_a", "p1_b"], "^(p.)_") == ["p1", "p1"]
    assert patients(["p1_a", "q1_b", "x"], "(p.)|(q.)|z*") == ["p1", "q1", "x"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_of_two_characters_are_those_of_one(form):
    names = [normalize("NFC", "\u00c4_1"), normalize("NFD", "\u00c4_2")]
    assert patients(names, normalize(form, "^(\u00c4)_")) == ["\u00c4"] * 2
    assert patients(names, "^(.)_") == ["\u00c4"] * 2


def test_a_pattern_that_would_take_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr("code_common.reporting.bootstrap.LONGEST_SEARCH_S", 0.2)
    with pytest.raises(InputError, match="takes too long on the name aaa"):
        patients(["a" * 60 + "!"], "(a+)+$")


def test_the_images_of_a_patient_come_together():
    groups = ["a", "a", "b", "c"]
    drawn = resamples(groups, count=200)
    for indices in drawn:
        assert (indices == 0).sum() == (indices == 1).sum()
    assert {len(indices) for indices in drawn} == {3, 4, 5, 6}  # 0 to 3 times the pair of a
    again = resamples(groups, count=200)
    assert all((first == second).all() for first, second in zip(drawn, again, strict=True))


def apart(count):
    """Groups of one image each."""
    return [str(k) for k in range(count)]


def scores(values):
    return [{"score": value} for value in values]


def test_the_interval_of_a_mean_is_that_of_theory():
    """About 1.96 standard errors on both sides, for 400 values of deviation 1."""
    values = np.random.default_rng(1).normal(size=400)
    low, high = intervals(apart(400), mean_of(scores(values)))["score"]
    error = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - error, abs=0.015)
    assert high == pytest.approx(values.mean() + error, abs=0.015)


def test_alike_images_of_few_patients_widen_it():
    statistic = mean_of(scores(np.repeat([0.0, 1.0, 0.0, 1.0], 25)))
    four_patients = [str(k // 25) for k in range(100)]
    assert intervals(four_patients, statistic)["score"] == [0.0, 1.0]
    low, high = intervals(apart(100), statistic)["score"]
    assert high - low < 0.25


def test_one_patient_allows_no_interval():
    assert intervals(["a", "a"], mean_of(scores([1.0, 2.0]))) == {}
    mean, interval, same_sign = paired(["a", "a"], [1.0, 2.0], [2.0, 3.0])
    assert mean == 1.0 and interval == [] and np.isnan(same_sign)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_the_interval_lies_within_the_values(values):
    low, high = intervals(apart(len(values)), mean_of(scores(values)))["score"]
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_a_pairing_takes_the_differences_between_images_out():
    """Images differ a lot, runs by exactly 0.01: alone nothing is seen, paired everything."""
    first = np.random.default_rng(0).uniform(0.2, 0.8, 12)
    mean, (low, high), same_sign = paired(apart(12), first, first + 0.01)
    assert mean == pytest.approx(0.01) and low == pytest.approx(0.01) == high and same_sign == 1
    mean, (low, high), _ = paired(apart(12), first, first[::-1])
    assert mean == pytest.approx(0) and low < 0 < high
