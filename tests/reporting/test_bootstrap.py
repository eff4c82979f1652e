"""Intervals over images and patients, against known answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_common.reporting.bootstrap import draws, intervals, mean_of, paired, patients


def test_patients_are_found_in_names():
    names = ["Liver_TCGA-18-5592-01Z", "Liver_TCGA-18-5592-02Z", "TCGA-21-5784-01A", "mine"]
    found = patients(names, "TCGA-..-[^-]+")
    assert found == ["TCGA-18-5592", "TCGA-18-5592", "TCGA-21-5784", "mine"]
    assert patients(["p1_a", "p1_b"], "^(p.)_") == ["p1", "p1"]


def test_the_images_of_a_patient_come_together():
    every = draws(["a", "a", "b", "c"], count=200)
    for drawn in every:
        assert (drawn == 0).sum() == (drawn == 1).sum()
    assert {len(drawn) for drawn in every} == {3, 4, 5, 6}  # 0 to 3 times the pair of a
    assert all((a == b).all() for a, b in zip(every, draws(list("aabc"), count=200), strict=True))


def test_the_interval_of_a_mean_is_that_of_theory():
    """About 1.96 standard errors on both sides, for 400 values of deviation 1."""
    values = np.random.default_rng(1).normal(size=400)
    rows = [{"score": v} for v in values]
    low, high = intervals(list(map(str, range(400))), mean_of(rows))["score"]
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.015)
    assert high == pytest.approx(values.mean() + error, abs=0.015)


def test_alike_images_of_few_patients_widen_it():
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 25)
    rows = [{"score": v} for v in values]
    apart = intervals([str(k) for k in range(100)], mean_of(rows))["score"]
    together = intervals([str(k // 25) for k in range(100)], mean_of(rows))["score"]
    assert together == [0.0, 1.0] and apart[1] - apart[0] < 0.25


def test_one_patient_says_nothing():
    assert intervals(["a", "a"], mean_of([{"s": 1.0}, {"s": 2.0}])) == {}
    mean, interval, _ = paired(["a", "a"], [1.0, 2.0], [2.0, 3.0])
    assert mean == 1.0 and interval == []


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_the_interval_lies_within_the_values(values):
    low, high = intervals(
        [str(k) for k in range(len(values))], mean_of([{"s": v} for v in values])
    )["s"]
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_a_pairing_takes_the_differences_between_images_out():
    """Images differ a lot, runs by exactly 0.01: alone nothing is seen, paired everything."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0.2, 0.8, 12)
    known = [str(k) for k in range(12)]
    mean, (low, high), sure = paired(known, first, first + 0.01)
    assert mean == pytest.approx(0.01) and low == pytest.approx(0.01) == high and sure == 1
    mean, (low, high), sure = paired(known, first, first[::-1])
    assert mean == pytest.approx(0) and low < 0 < high
