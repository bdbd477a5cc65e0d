"""The law of fused surprises against what is known of sums of exponentials, and the rate that its level keeps."""

import numpy as np
import pytest
from scipy import stats

from engine.cascade import MADE_UP, Mixture, Pairs, exit_limit, outcome
from engine.fusion import fuse
from trainers.calibration.tails import fit_tail
from trainers.ensemble.copula import level, simulated

TARGETS = [0.05, 0.01, 0.005, 1e-4]


def scores_of(n, seed, correlation, members=2):
    random = np.random.default_rng(seed)
    normal = np.sqrt(correlation) * random.normal(size=n) + np.sqrt(1 - correlation) * random.normal(size=(members, n))
    return np.exp(normal) * np.array([[1.0], [1e-3], [50.0]])[:members]


@pytest.mark.parametrize("target", TARGETS)
def test_the_level_of_one_member_is_its_own_surprise(target):
    fused = simulated(scores_of(60, 0, 0.0, members=1), Mixture((1.0,), "mean")).fused
    assert level(fused, target) == pytest.approx(-np.log(target), abs=0.1)


@pytest.mark.parametrize("target", TARGETS)
def test_independent_members_add_up_to_a_gamma_law(target):
    fused = simulated(scores_of(20_000, 0, 0.0), Mixture((3.0, 3.0), "mean")).fused
    assert stats.gamma(2, scale=0.5).sf(level(fused, target)) == pytest.approx(target, rel=0.15)


def test_members_that_are_one_and_the_same_count_once():
    one = scores_of(60, 0, 0.0, members=1)
    fused = simulated(np.concatenate([one, 7 * one]), Mixture((1.0, 2.0), "mean")).fused
    assert level(fused, 0.01) == pytest.approx(-np.log(0.01), abs=0.05)


def test_the_maximum_of_independent_members():
    fused = simulated(scores_of(20_000, 0, 0.0), Mixture((1.0, 1.0), "max")).fused
    assert 1 - (1 - np.exp(-level(fused, 0.01))) ** 2 == pytest.approx(0.01, rel=0.05)


def exponential(n, seed, correlation):
    return -stats.norm.logsf(np.log(scores_of(n, seed, correlation) / np.array([[1.0], [1e-3]])))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.6, 0.4)])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_few_pictures_keep_the_rate_and_the_bound(correlation, weights):
    """Exponential tails: the mean over calibrations by 51 pictures is what was asked for, neither below nor above."""
    new, mixture = exponential(20_000, 999, correlation), Mixture(weights, "mean")
    rates, cascade = [], []
    for seed in range(100):
        good = exponential(51, seed, correlation)
        members = [fit_tail(raw).of(each) for raw, each in zip(good, new, strict=True)]
        unseen, found = Pairs(members[0], fuse(members, weights, "mean")), simulated(good, mixture)
        at = {target: level(found.fused, target) for target in (0.05, 0.01)}
        rates.append([(unseen.fused > at[target]).mean() / target for target in at])
        frames = {"good": Pairs(good[0], good[0]), "synthetic": Pairs(np.zeros(0), np.zeros(0)), MADE_UP: found}
        limit = exit_limit(frames, mixture, at[0.01], 0.002)
        cascade.append(outcome(unseen, limit, at[0.01]))
    assert np.mean(rates, axis=0) == pytest.approx([1.0, 1.0], abs=0.25)
    assert np.mean([each.disagreement for each in cascade]) < 0.0025
    assert np.mean([each.exits for each in cascade]) > 0.7
