"""The cascade's promise on exchangeable frames, and its arithmetic."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine import cascade
from engine.cascade import Pairs, exceedance, exit_limit, outcome
from engine.errors import BundleError
from trainers.calibration.thresholds import tail_level


def frames(n, seed, correlation=0.5):
    """Surprises of two correlated members and their mean."""
    random = np.random.default_rng(seed)
    common = random.normal(size=n)
    parts = [correlation**0.5 * common + (1 - correlation) ** 0.5 * random.normal(size=n) for _ in range(2)]
    members = np.exp(np.array(parts) / 2)
    return Pairs(members[0], members.mean(axis=0))


LEVEL = float(np.quantile(frames(200_000, 0).fused, 0.99))


@pytest.mark.parametrize(("n", "bound"), [(600, 0.002), (1500, 0.002), (1500, 0.005), (400, 0.01)])
def test_the_bound_is_kept_on_the_mean_over_exchangeable_frames(n, bound):
    new = frames(200_000, 1)
    limits = [exit_limit(frames(n, seed), LEVEL, bound) for seed in range(2, 202)]
    assert {limit.how for limit in limits} == {"conformal"}
    found = [outcome(new, limit, LEVEL) for limit in limits]
    rates = np.array([each.disagreement for each in found])
    assert rates.mean() <= bound + 2 * rates.std() / len(rates) ** 0.5
    assert np.mean([each.exits for each in found]) > 0.5  # and it saves something


@pytest.mark.parametrize("n", [64, 320])
def test_an_estimate_from_few_frames_is_near_the_bound(n):
    new = frames(200_000, 1)
    limits = [exit_limit(frames(n, seed), LEVEL, 0.002) for seed in range(2, 102)]
    assert {limit.how for limit in limits} == {"tail-fit"}
    rates = [outcome(new, limit, LEVEL).disagreement for limit in limits]
    assert np.mean(rates) <= 1.5 * 0.002


def test_conformal_limit_by_hand():
    """Of 999 frames at a bound of 0.3 % two may disagree: the limit is just below the third that would."""
    first = np.arange(999) / 100
    fused = np.where(np.isin(np.arange(999), [100, 300, 500, 700]), 9.0, 0.5)
    limit = exit_limit(Pairs(first, fused), 8.0, 0.003)
    assert limit.surprise == np.nextafter(5.0, 0)
    assert outcome(Pairs(first, fused), limit, 8.0) == cascade.Outcome(999, 500 / 999, 2 / 999)


def test_what_exits_scores_as_good():
    good = Pairs(np.linspace(0, 10, 1000), np.full(1000, 0.1))
    limit = exit_limit(good, 3.0, 0.01)
    assert 2.99 < limit.surprise < 3.0


def test_too_few_frames_let_nothing_exit():
    few = Pairs(np.linspace(0, 1, 15), np.linspace(0, 1, 15))
    assert exit_limit(few, 5.0, 0.002).surprise == -np.inf
    assert outcome(few, exit_limit(few, 5.0, 0.002), 5.0).exits == 0


def test_exceedance_is_the_inverse_of_the_calibration_s_tail():
    scores = np.random.default_rng(0).gamma(4, size=120)
    for rate in (0.02, 0.005, 0.001):
        assert exceedance(scores, tail_level(np.sort(scores), rate)) == pytest.approx(rate)
    assert exceedance(scores, float(np.median(scores))) == pytest.approx(0.5, abs=0.02)


def test_a_file_of_frames_is_read_and_another_refused(tmp_path):
    arrays = {f"{kind}.{name}": np.arange(3.0) for kind in cascade.KINDS for name in ("first", "fused")}
    save_file(arrays, tmp_path / "frames")
    assert cascade.read(tmp_path / "frames")["labelled"].fused.tolist() == [0, 1, 2]
    save_file({"other": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(BundleError, match="not the frames of a cascade"):
        cascade.read(tmp_path / "other")
    assert outcome(Pairs(np.zeros(0), np.zeros(0)), exit_limit(frames(64, 0), 1.0, 0.1), 1.0).n == 0
