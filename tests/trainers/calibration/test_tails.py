"""Tail probabilities against known laws, and that no scores are tied."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainers.calibration.tails import fit_tail
from trainers.calibration.thresholds import tail_level

LAWS = {
    "normal": stats.norm(10, 1),
    "gamma": stats.gamma(4),
    "gumbel": stats.gumbel_r(10, 0.5),
    "log-normal": stats.lognorm(0.4),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("n", [64, 320, 5000])
def test_new_scores_are_as_surprising_as_they_should_be(law, n):
    """The mean share of new scores beyond the 25 %, 5 %, 1 % and 0.5 % points of tails fitted to n scores."""
    wanted = np.array([0.25, 0.05, 0.01, 0.005])
    x = np.linspace(*law.isf([0.9, 1e-9]), 4000)
    points = [np.interp(-np.log(wanted), fit_tail(law.rvs(n, random_state=seed)).of(x), x) for seed in range(60)]
    np.testing.assert_allclose(law.sf(points).mean(axis=0), wanted, rtol=0.45 if n == 64 else 0.35)


def test_the_tail_is_scipy_s_generalised_pareto():
    """Above the last knot, P(excess > x) = (1 + x / S)^-k is genpareto with shape 1 / k and scale S / k."""
    scores = np.random.default_rng(0).gamma(4, size=150)
    tail, ordered = fit_tail(scores), np.sort(scores)
    k, u = 10, ordered[-11]
    total = (ordered[-10:] - u).sum()
    x = u + np.linspace(0.01, 20, 50)
    survival = 11 / 151 * stats.genpareto(1 / k, scale=total / k).sf(x - u)
    np.testing.assert_allclose(tail.of(x), -np.log(survival), rtol=1e-12)
    assert np.exp(-tail.of(np.array([tail_level(ordered, 0.002)])))[0] == pytest.approx(0.002)


def test_knots_are_the_quantiles_of_the_scores():
    scores = np.random.default_rng(0).gamma(4, size=999)
    tail = fit_tail(scores)
    for knot, surprise in zip(tail.knots, tail.surprise, strict=True):
        assert (scores >= knot).mean() == pytest.approx(np.exp(-surprise), abs=2e-3)


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.01, 1e4), min_size=12, max_size=60, unique=True),
    st.sampled_from([np.float32, np.float64]),
)
def test_it_never_falls_and_is_never_tied(scores, dtype):
    scores = np.array(scores)
    try:
        tail = fit_tail(scores)
    except ValueError:
        assert np.ptp(np.sort(scores)[: len(scores) - 3]) < 1e-6 * scores.max()
        return
    span = np.ptp(scores)
    x = np.linspace(scores.min() - span / 10, scores.max() + span, 400)
    found = tail.of(x.astype(dtype))
    assert found.dtype == dtype
    assert (np.diff(found) >= 0).all()
    if dtype is np.float64:
        assert (np.diff(found) > 0).all()
        assert (found > 0).all()


def test_scores_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="good pictures hardly differ"):
        fit_tail(np.full(50, 3.0))
