"""The cascade's promise on exchangeable frames, and its arithmetic."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine import cascade
from engine.cascade import Mixture, Pairs, exit_limit, outcome
from engine.errors import BundleError


def frames(n, seed, correlation=0.5):
    """Surprises of two correlated members and their mean."""
    random = np.random.default_rng(seed)
    common = random.normal(size=n)
    parts = [correlation**0.5 * common + (1 - correlation) ** 0.5 * random.normal(size=n) for _ in range(2)]
    members = np.exp(np.array(parts) / 2)
    return Pairs(members[0], members.mean(axis=0))


NONE = Pairs(np.zeros(1), np.zeros(1))  # made-up frames on which the others say nothing
FIRST = Mixture((1.0, 1.0), "mean")


def of(good, made_up=NONE, synthetic=NONE):
    """Frames by their kind."""
    return {"good": good, cascade.MADE_UP: made_up, "synthetic": synthetic}


LEVEL = float(np.quantile(frames(200_000, 0).fused, 0.99))


@pytest.mark.parametrize(("n", "bound"), [(600, 0.002), (1500, 0.002), (1500, 0.005), (400, 0.01)])
def test_the_bound_is_kept_on_the_mean_over_exchangeable_frames(n, bound):
    new = frames(200_000, 1)
    limits = [exit_limit(of(frames(n, seed)), FIRST, LEVEL, bound) for seed in range(2, 202)]
    assert {limit.how for limit in limits} == {"conformal"}
    found = [outcome(new, limit, LEVEL) for limit in limits]
    rates = np.array([each.disagreement for each in found])
    assert rates.mean() <= bound + 2 * rates.std() / len(rates) ** 0.5
    assert np.mean([each.exits for each in found]) > 0.5  # and it saves something


def surprises(n, seed):
    """Of two independent members; and their mean."""
    members = np.random.default_rng(seed).exponential(size=(2, n))
    return Pairs(members[0], members.mean(axis=0))


def test_a_limit_from_few_frames_is_counted_on_made_up_ones():
    """By numerical integration of P(first <= limit, mean >= level) for independent exponentials."""
    level = 3.5
    limit = exit_limit(of(frames(64, 0), surprises(400_000, 0)), FIRST, level, 0.002)
    assert (limit.how, limit.n) == ("tail-fit", 64)
    s = np.linspace(0, limit.surprise, 100_001)
    assert np.trapezoid(np.exp(-s) * np.exp(-(2 * level - s)), s) == pytest.approx(0.002, rel=0.1)


def test_conformal_limit_by_hand():
    """Of 999 frames at a bound of 0.3 % two may disagree: the limit is just below the third that would."""
    first = np.arange(999) / 100
    fused = np.where(np.isin(np.arange(999), [100, 300, 500, 700]), 9.0, 0.5)
    limit = exit_limit(of(Pairs(first, fused)), FIRST, 8.0, 0.003)
    assert limit.surprise == np.nextafter(5.0, 0)
    assert outcome(Pairs(first, fused), limit, 8.0) == cascade.Outcome(999, 500 / 999, 2 / 999)


def test_what_exits_scores_as_good():
    good = Pairs(np.linspace(0, 10, 1000), np.full(1000, 0.1))
    limit = exit_limit(of(good), FIRST, 3.0, 0.01)
    assert 2.99 < limit.surprise < 3.0


def test_a_frame_that_one_odd_opinion_would_change_does_not_exit():
    """At the limit, what the others say of one good frame in a hundred makes the fused score just the level."""
    mixture = Mixture((1.5, 0.3, 0.2), "mean")
    members = np.random.default_rng(0).exponential(size=(3, 1000))
    made_up = Pairs(members[0], np.average(members, axis=0, weights=mixture.weights))
    good = Pairs(np.linspace(0, 10, 1000), np.full(1000, 0.1))
    limit = exit_limit(of(good, made_up), mixture, 3.0, 0.01).surprise
    others = np.quantile(np.average(members[1:], axis=0, weights=mixture.weights[1:]), 0.99)
    assert np.average([limit, others], weights=[1.5, 0.5]) == pytest.approx(3.0)
    assert exit_limit(of(good, made_up), Mixture((1.5, 0.3), "max"), 4.0, 0.01).surprise == np.nextafter(4.0, 0)


def test_no_synthetic_defect_that_the_ensemble_finds_exits():
    """The limit is just below the first of them. Those that it misses do not count."""
    good = Pairs(np.linspace(0, 10, 1000), np.full(1000, 0.1))
    first = np.arange(1000) / 1000
    synthetic = Pairs(first, np.where(np.arange(1000) % 2, 5.0, 0.5))
    synthetic.fused[:700] = 0.5
    limit = exit_limit(of(good, synthetic=synthetic), FIRST, 3.0, 0.01)
    assert limit.surprise == np.nextafter(0.701, 0)
    assert outcome(synthetic, limit, 3.0) == cascade.Outcome(1000, 701 / 1000, 0)


def test_a_bound_that_nothing_can_show_lets_nothing_exit():
    few = frames(15, 0)
    assert exit_limit(of(few, surprises(1000, 0)), FIRST, 5.0, 1e-9).surprise == -np.inf
    assert outcome(few, exit_limit(of(few, surprises(1000, 0)), FIRST, 5.0, 1e-9), 5.0).exits == 0


def test_a_file_of_frames_is_read_and_another_refused(tmp_path):
    arrays = {
        f"{kind}.{name}": np.arange(3.0) for kind in (*cascade.KINDS, cascade.MADE_UP) for name in ("first", "fused")
    }
    save_file(arrays, tmp_path / "frames")
    assert cascade.read(tmp_path / "frames")["labelled"].fused.tolist() == [0, 1, 2]
    save_file({"other": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(BundleError, match="not the frames of a cascade"):
        cascade.read(tmp_path / "other")
    assert outcome(Pairs(np.zeros(0), np.zeros(0)), exit_limit(of(frames(64, 0)), FIRST, 1.0, 0.1), 1.0).n == 0
