"""The estimated rate of false alarms: at rest the calibrated one, after a shift that of the shifted scores."""

from __future__ import annotations

import numpy as np
import pytest

from engine.drift.false_alarms import false_alarm_rate, tail_probability
from trainers.calibration.thresholds import tail_level


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.001])
def test_the_tail_is_the_one_that_thresholds_are_set_by(rate):
    ordered = np.sort(np.random.default_rng(0).gamma(4.0, size=100))
    assert tail_probability(ordered, tail_level(ordered, rate)) == pytest.approx(rate, rel=1e-6)


def test_the_body_is_the_share_of_scores_above():
    ordered = np.sort(np.random.default_rng(1).gamma(4.0, size=400))
    for level in np.quantile(ordered, (0.1, 0.5, 0.9)):
        assert tail_probability(ordered, float(level)) == pytest.approx((ordered > level).mean(), abs=0.01)
    assert tail_probability(ordered, -1.0) == 1.0


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (1.5, 1.0), (0.5, 1.4), (-1.0, 1.0)])
def test_a_shift_costs_what_the_shifted_scores_cost_whatever_a_few_defects_score(shift, stretch):
    draw = np.random.default_rng(2)
    reference, recent, truth = (draw.gamma(4.0, size=n) for n in (1000, 4000, 400_000))
    threshold = float(np.quantile(truth, 0.99))
    now = stretch * recent + shift
    now[:80] = 1e3  # 2 % defects
    want = (stretch * truth + shift > threshold).mean()
    assert false_alarm_rate(np.sort(reference), np.sort(now), threshold) == pytest.approx(want, rel=0.4, abs=0.003)


def test_scores_that_do_not_differ_have_no_width():
    assert false_alarm_rate(np.ones(20), np.full(64, 3.0), 2.0) == 1.0
    assert false_alarm_rate(np.ones(20), np.full(64, 1.0), 2.0) == 0.0
