"""Intervals against plain loops over drawn pictures, and against the binomial law itself."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from trainers.evaluation import bootstrap
from trainers.evaluation.bootstrap import Bootstrap, PixelBootstrap, share_interval
from trainers.evaluation.metrics import PixelMeter

TRUTH = np.arange(50) % 5 > 2  # 30 good pictures, 20 defective ones


def scored(seed=0):
    return np.round(np.random.default_rng(seed).normal(TRUTH * 1.2, 1), 1)  # with ties


def test_kinds_are_drawn_apart_and_as_often_as_by_chance():
    weights = Bootstrap(TRUTH).weights.astype(float)
    assert weights.shape == (1000, 50)
    assert set(weights[:, ~TRUTH].sum(axis=1)) == {30}
    assert set(weights[:, TRUTH].sum(axis=1)) == {20}
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)
    assert weights[:, TRUTH].var() == pytest.approx(1 - 1 / 20, abs=0.05)
    np.testing.assert_array_equal(Bootstrap(TRUTH).weights, weights)


@pytest.mark.parametrize("figure", ["auroc", "f1"])
def test_intervals_are_those_of_a_plain_loop(figure, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 150)
    scores = scored()
    drawn = Bootstrap(TRUTH)
    if figure == "auroc":
        found, values, of = drawn.auroc(scores), scores, roc_auc_score
    else:
        found, values, of = drawn.f1(scores >= 0.5), scores >= 0.5, f1_score
    repeated = [np.repeat(np.arange(50), row) for row in drawn.weights]
    assert found == pytest.approx(np.quantile([of(TRUTH[i], values[i]) for i in repeated], [0.025, 0.975]), abs=1e-12)


def test_other_draws_give_about_the_same_interval():
    scores, random = scored(), np.random.RandomState(7)
    found = []
    for _ in range(2000):
        good, bad = (random.choice(each, len(each)) for each in (scores[~TRUTH], scores[TRUTH]))
        above = np.subtract.outer(bad, good)
        found.append(np.mean((above > 0) + (above == 0) / 2))
    assert Bootstrap(TRUTH).auroc(scores) == pytest.approx(np.quantile(found, [0.025, 0.975]), abs=0.02)


def test_pixel_intervals_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 40)
    random = np.random.default_rng(1)
    truth = np.arange(40) % 4 == 0
    masks, maps, meters = [], [], []
    for defective in truth:
        mask = np.zeros((14, 16), bool)
        if defective:
            mask[2:6, 3 : random.integers(5, 9)] = mask[9:12, 9:14] = True
        level = random.uniform(3000, 6000) * (1 + 3 * random.random() * mask) + random.normal(0, 1200, mask.shape)
        maps.append(np.clip(level, 0, 65535).astype(np.uint16))
        masks.append(mask)
        meters.append(PixelMeter())
        meters[-1].add(maps[-1], mask if defective else None)
    drawn = Bootstrap(truth)
    pixels = PixelBootstrap(drawn)
    for i, meter in enumerate(meters):
        pixels.add(i, meter)
    repeated = [np.repeat(np.arange(40), row) for row in drawn.weights]
    aurocs = [roc_auc_score(np.array(masks)[i].ravel(), np.array(maps)[i].ravel()) for i in repeated]
    aupros = [PixelMeter.total(meters[j] for j in i).aupro() for i in repeated]
    assert pixels.auroc() == pytest.approx(np.quantile(aurocs, [0.025, 0.975]), abs=5e-4)
    assert pixels.aupro() == pytest.approx(np.quantile(aupros, [0.025, 0.975]), abs=2e-3)
    assert np.ptp(pixels.aupro()) > 0.02


def test_there_are_none_without_good_or_defective_pictures():
    for truth in (np.zeros(5, bool), np.ones(5, bool)):
        drawn = Bootstrap(truth)
        assert drawn.auroc(np.arange(5.0)) is None
        assert (drawn.f1(np.ones(5, bool)) is None) == (not truth.any())
        assert PixelBootstrap(drawn).auroc() is None
        assert PixelBootstrap(drawn).aupro() is None
    assert share_interval(0, 0) is None


def at_least(k, n, p):
    """The chance of k or more of n."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(("k", "n"), [(1, 41), (7, 41), (40, 41), (3, 176)])
def test_a_share_is_bounded_where_what_was_seen_is_as_rare_as_stated(k, n):
    low, high = share_interval(k, n)
    assert at_least(k, n, low) == pytest.approx(0.025, abs=1e-9)
    assert 1 - at_least(k + 1, n, high) == pytest.approx(0.025, abs=1e-9)


def test_a_share_of_none_or_all_is_bounded_on_one_side():
    assert share_interval(0, 41) == (0, pytest.approx(1 - 0.025 ** (1 / 41), abs=1e-9))
    assert share_interval(41, 41) == (pytest.approx(0.025 ** (1 / 41), abs=1e-9), 1)
