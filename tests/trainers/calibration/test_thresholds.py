"""Thresholds hold their false-alarm target, by simulation against known distributions."""

import numpy as np
import pytest
from scipy import stats

from engine.contract import Calibration
from engine.decide import calibrated_score
from trainers.calibration.thresholds import (
    PixelScores,
    ResplitCheck,
    Split,
    calibrate,
    describe,
    level_of,
    resplit_check,
    scale,
    tail_level,
)
from trainers.dataset.good import blocks

LAWS = {
    "normal": stats.norm(10, 1),
    "log-normal": stats.lognorm(0.3),
    "gamma": stats.gamma(4),
    "gumbel": stats.gumbel_r(10, 1),
    "heavy": stats.genextreme(-0.1, loc=10),
}


def mean_rate(law, n: int, target: float, folds: int, draws: int = 1500) -> float:
    """Mean true false-alarm rate of the level over draws of n held-out scores."""
    samples = law.rvs((draws, n), random_state=np.random.default_rng(7))
    return float(law.sf([level_of(sample, target, folds)[0] for sample in samples]).mean())


def maps_with(peaks: np.ndarray) -> np.ndarray:
    """(n, 8, 8) maps of ones with the given peaks."""
    maps = np.ones((len(peaks), 8, 8), np.float32)
    maps[:, 3, 4] = peaks
    return maps


def calibrated(scores: np.ndarray, target: float = 0.05, folds: int = 20) -> Calibration:
    pixels = PixelScores()
    for part in np.array_split(maps_with(scores), 3):
        pixels.add(part)
    return calibrate(scores, pixels, folds=folds, target_fpr=target)


@pytest.mark.parametrize("n", [19, 50, 400])
def test_held_out_set_gives_the_conformal_guarantee(n):
    scores = np.random.default_rng(n).normal(size=n)
    level, estimate = level_of(scores, 0.05, folds=1)
    rank = int(np.ceil(round((n + 1) * 0.95, 9)))
    assert level == np.sort(scores)[rank - 1]
    assert (estimate.how, estimate.guarantee) == ("split-conformal", True)
    rate = mean_rate(LAWS["gamma"], n, 0.05, folds=1)
    assert rate == pytest.approx((n + 1 - rank) / (n + 1), rel=0.06)
    assert rate <= 0.05 * 1.05


def test_one_picture_too_few_for_the_guarantee_is_an_estimate():
    assert level_of(np.arange(18.0), 0.05, folds=1)[1].how == "tail-fit"
    assert level_of(np.arange(19.0), 0.05, folds=1)[1].guarantee
    assert level_of(np.arange(99.0), 0.01, folds=1)[1].guarantee
    assert not level_of(np.arange(98.0), 0.01, folds=1)[1].guarantee


@pytest.mark.parametrize("name", LAWS)
def test_folds_with_enough_pictures_hold_the_target_on_average(name):
    assert level_of(np.arange(300.0), 0.02, folds=20)[1].how == "k-fold"
    assert mean_rate(LAWS[name], 300, 0.02, folds=20) == pytest.approx(0.02, rel=0.08)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("n", [20, 40, 80])
def test_few_pictures_come_close_to_the_target_whatever_the_law(name, n):
    assert level_of(np.arange(float(n)), 0.01, folds=5)[1].how == "tail-fit"
    assert 0.55 < mean_rate(LAWS[name], n, 0.01, folds=5) / 0.01 < 1.45


def test_few_pictures_do_better_than_their_largest_score():
    law, n = LAWS["gumbel"], 30
    samples = law.rvs((1500, n), random_state=np.random.default_rng(3))
    largest = float(law.sf(samples.max(axis=1)).mean())
    assert largest > 0.03
    assert abs(mean_rate(law, n, 0.01, folds=5) - 0.01) < 0.002


def test_the_tail_is_exact_for_exponential_scores():
    samples = np.sort(np.random.default_rng(0).exponential(size=(20000, 12)), axis=1)
    rates = np.exp([-tail_level(sample, 0.01) for sample in samples])
    assert rates.mean() == pytest.approx(0.01, abs=4 * rates.std() / np.sqrt(len(rates)))


@pytest.mark.parametrize(("n", "folds"), [(40, 8), (150, 1), (400, 20)])
def test_interval_covers_the_true_rate(n, folds):
    law = LAWS["gumbel"]
    samples = law.rvs((4000, n), random_state=np.random.default_rng(6))
    found = [level_of(sample, 0.02, folds) for sample in samples]
    low, high = np.array([estimate.interval for _, estimate in found]).T
    rates = law.sf([level for level, _ in found])
    assert 0.94 <= ((low <= rates) & (rates <= high)).mean() <= 0.995


def test_more_folds_bring_the_final_model_closer_to_its_target():
    """A Gaussian of 20 numbers fitted to few pictures scores unseen ones too high; two folds make that worse."""
    rng = np.random.default_rng(1)
    rates = {2: [], 20: []}
    for _ in range(30):
        good, later = rng.normal(size=(60, 20)), rng.normal(size=(2000, 20))
        for k in rates:
            parts = blocks(60, k)
            scores = np.concatenate([distances(np.delete(good, part, axis=0), good[part]) for part in parts])
            rates[k].append((distances(good, later) > level_of(scores, 0.05, k)[0]).mean())
    assert np.mean(rates[2]) < 0.01
    assert 0.02 < np.mean(rates[20]) < 0.06


def distances(train: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mahalanobis distances (n,) of vectors to the Gaussian of the training vectors."""
    precision = np.linalg.inv(np.cov(train.T))
    gap = seen - train.mean(axis=0)
    return np.sqrt(np.einsum("ni,ij,nj->n", gap, precision, gap))


@pytest.mark.parametrize("scores", [np.array([3.0] * 30), np.repeat([1.0, 2.0, 5.0], [10, 10, 10])])
@pytest.mark.parametrize("folds", [1, 5])
def test_a_picture_that_ties_with_the_level_is_good(scores, folds):
    level, _ = level_of(scores, 0.05, folds)
    calibration = calibrated(scores, 0.05, folds)
    assert calibrated_score(level, calibration) < 0.5
    assert calibration.image.calibrated(np.float32(level)) < 0.5
    assert calibration.image.calibrated(np.float32([level]))[0] < np.float32(0.5)
    assert calibrated_score(level + 0.01, calibration) > 0.5


def test_scale_puts_the_threshold_at_half_and_the_median_at_a_tenth():
    scores = np.random.default_rng(0).gamma(4, size=500)
    calibration = calibrated(scores)
    assert calibration.image.calibrated(np.median(scores)) == pytest.approx(0.1, abs=1e-5)
    assert calibration.pixel.calibrated(np.ones(1))[0] == pytest.approx(0.1, abs=1e-5)
    grid = np.sort(np.concatenate([scores, scores * 100]))
    assert (np.diff(calibration.image.calibrated(grid)) > 0).all()


def test_scale_of_scores_far_from_zero_stays_finite_and_useful():
    flat = scale(1e6, 1e6)
    assert flat.threshold > 1e6
    assert flat.calibrated(np.array([1e6 + 100.0]))[0] > 0.8
    assert scale(0.0, 0.0).width > 0
    assert scale(-3.0, -5.0).calibrated(np.array([-5.0]))[0] == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize(("target", "rate"), [(0.001, 0.005), (0.01, 0.05), (0.04, 0.05), (0.1, 0.1)])
def test_mask_shows_on_few_good_pictures_and_on_every_rejected_one(target, rate):
    rng = np.random.default_rng(2)
    calibration = calibrated(rng.gumbel(10, 1, size=2000), target)
    assert calibration.pixel_estimate.target_fpr == pytest.approx(rate)
    assert calibration.pixel.threshold <= calibration.image.threshold * (1 + 1e-6)
    unseen = maps_with(rng.gumbel(10, 1, size=20000))
    assert (unseen >= calibration.pixel.threshold).any(axis=(1, 2)).mean() == pytest.approx(rate, rel=0.5)


def test_input_that_cannot_be_calibrated():
    for scores, message in (
        (np.ones(3), "at least 4 finite scores"),
        (np.array([1.0, 2.0, 3.0, np.nan]), "at least 4 finite scores"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrated(scores)
    with pytest.raises(ValueError, match=r"rate in \(0, 0.5\], got 0"):
        calibrated(np.arange(10.0), 0.0)
    with pytest.raises(ValueError, match="at least 4"):
        calibrate(np.arange(10.0), PixelScores(), folds=5, target_fpr=0.01)


def test_one_split_is_a_beta_binomial_interval():
    check = resplit_check([Split(320, 41, 3)], 0.05)
    low, high = stats.betabinom(41, 321 * 0.05, 321 * 0.95).interval(0.95)
    assert check.interval == (low / 41, high / 41)
    assert check == ResplitCheck(0.05, 41, 3, 3 / 41, check.interval)


def test_resplits_add_up_and_fail_on_either_side():
    sizes = [(100, 60)] * 10
    rng = np.random.default_rng(0)
    rates = rng.beta(101 * 0.05, 101 * 0.95, size=(40000, 10))
    totals = rng.binomial(60, rates).sum(axis=1)
    check = resplit_check([Split(n, m, 3) for n, m in sizes], 0.05)
    expected = np.quantile(totals, [0.025, 0.975]) / 600
    assert check.interval == pytest.approx(expected, abs=1.01 / 600)
    assert check.passed
    assert not resplit_check([Split(n, m, 0) for n, m in sizes], 0.05).passed
    assert not resplit_check([Split(n, m, 6) for n, m in sizes], 0.05).passed


def test_card_says_target_expectation_and_source():
    calibration = calibrated(np.random.default_rng(0).gamma(4, size=400), 0.01)
    text = describe(calibration)
    low, high = (f"{100 * rate:.2g} %" for rate in calibration.image_estimate.interval)
    assert f"target 1 % of good pictures; expect {low} to {high}" in text
    assert "k-fold, an estimate, from 400 good pictures (20 folds)" in text
    assert "Review" not in text
    assert len(text.splitlines()) == 5
