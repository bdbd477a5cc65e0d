"""The distance and its chance, against SciPy's exact two-sample test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from engine.drift.distance import critical, distance, probability


@pytest.mark.parametrize("shift", [-0.5, 0.0, 1.0])
@pytest.mark.parametrize(("n", "m"), [(8, 32), (40, 256), (300, 128), (24, 24)])
def test_distance_and_probability_are_those_of_scipy(n, m, shift):
    draw = np.random.default_rng(n)
    a, b = np.sort(draw.normal(size=n)), np.sort(draw.normal(size=m) + shift)
    want = stats.ks_2samp(a, b, method="exact")
    found = distance(a, b)
    assert found == pytest.approx(want.statistic * want.statistic_sign, abs=1e-12)
    assert probability(n, m, abs(found)) == pytest.approx(want.pvalue, rel=1e-4, abs=1e-13)


def test_ties_are_counted_as_scipy_counts_them():
    draw = np.random.default_rng(0)
    a, b = np.sort(draw.integers(0, 5, 40)).astype(float), np.sort(draw.integers(1, 6, 64)).astype(float)
    want = stats.ks_2samp(a, b, method="exact")
    assert distance(a, b) == pytest.approx(want.statistic * want.statistic_sign, abs=1e-12)


@pytest.mark.parametrize("chance", [0.05, 1e-6])
def test_the_critical_distance_is_the_least_that_is_rare_enough(chance):
    level = critical(40, 64, chance)
    assert probability(40, 64, level) <= chance < probability(40, 64, level - 1 / 1024)


def test_where_nothing_is_rare_enough_no_distance_reaches_it():
    assert critical(5, 32, 1e-12) > 1
