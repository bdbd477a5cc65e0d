"""Thresholds from good pictures only, for a wanted rate of false alarms.

The scores must be held out: each from a model that did not see the picture. There are two ways to get them.

- One held-out set (`folds=1`): some pictures are never trained on. For exchangeable pictures the split-conformal rank
  then guarantees a mean false-alarm rate of at most the target (Vovk et al. 2005; Angelopoulos and Bates 2021).
- k folds: each block of pictures is scored by a model trained on the others, the final model is trained on all. This
  wastes none, but gives an estimate. Its bias: a fold's model saw a share 1 - 1/k of the pictures, fits a little worse
  and scores held-out pictures a little higher than the final model will, so the threshold comes out high and the rate
  too low. Use many folds (up to 20 contiguous blocks, see `trainers.data.blocks`; a Gaussian is cheap to refit) where
  the number of training pictures matters to the scores; `resplit_check` shows what is left of the bias.

With fewer than three false alarms expected among the held-out pictures a quantile would rest on the largest one or two
scores. A fitted tail takes its place: excesses over a high score of a maximum over positions are nearly exponential
(its distribution is in the Gumbel domain), and the predictive law of the next excess over k that sum to S is
P(excess > x) = (1 + x / S)^-k, which makes the mean rate exact for exponential tails however small k is. With
k = max(3, n / 15), over 11 laws from normal to Pareto, the mean rate was 0.6 to 1.5 times a target of 1 % at n = 15, 0.7
to 1.4 times at n = 30 and 0.9 to 1.1 times at n = 100 (the plain quantile: 6, 3 and 1 times, with a larger error
throughout). Fitted generalised Pareto, normal and log-normal tails came out worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from engine.contract import Calibration, Estimate, Scale
from engine.types import F32, F64
from trainers.data import MIN_GOOD

How = Literal["split-conformal", "k-fold", "tail-fit"]

PIXEL_FPR = 0.001
_COVERAGE = 0.95
_FEW_EXPECTED = 3.0  # below so many expected false alarms the tail is fitted
_TAIL_PICTURES = 15  # one excess per so many pictures
_RESAMPLES = 2000
_BIN_SHIFT = 14  # 23 - 14 = 9 bits of mantissa: bins 2^-9 wide, relative


class PixelScores:
    """What the pixels of held-out good pictures scored, as one histogram a picture: bounded memory, no sorting.

    Bins are the floats that share sign, exponent and nine bits of mantissa, so a threshold is placed to 0.2 % of its
    value; counts above it are exact. A picture takes about 20 kB whatever its size.
    """

    def __init__(self) -> None:
        self._bins: list[npt.NDArray[np.int64]] = []  # per picture, ascending
        self._share: list[F64] = []  # per picture, share of its pixels in each bin

    def __len__(self) -> int:
        return len(self._bins)

    def add(self, maps: F32) -> None:
        """Take in raw maps (N, H, W); raises ValueError when one is not finite."""
        if not np.isfinite(maps).all():
            raise ValueError("PixelScores: expected finite maps, got nan or inf; the detector is broken")
        for one in maps:
            counts = np.bincount(_bin_of(one).ravel())
            bins = np.flatnonzero(counts)
            self._bins.append(bins)
            self._share.append(counts[bins] / one.size)

    def threshold(self, target: float) -> float:
        """The lowest bin edge that at most a share `target` of the pixels reach, all pictures weighing the same."""
        bins, share = self._pooled()
        reach = np.cumsum(share[::-1])[::-1]  # share of pixels in this bin or above
        over = np.flatnonzero(reach > target)
        return _edge(int(bins[over[-1]]) + 1)

    def median(self) -> float:
        """The pooled median, to the bin."""
        bins, share = self._pooled()
        return _edge(int(bins[np.searchsorted(np.cumsum(share), 0.5)]))

    def exceeding(self, threshold: float) -> F64:
        """(n,) share of each picture's pixels at or above one of the values that `threshold` returns."""
        first = int(_bin_of(np.asarray([threshold], np.float32))[0])
        pairs = zip(self._bins, self._share, strict=True)
        return np.array([share[np.searchsorted(bins, first) :].sum() for bins, share in pairs])

    def _pooled(self) -> tuple[npt.NDArray[np.int64], F64]:
        """Bins in ascending order and the mean share of pixels in each."""
        bins, inverse = np.unique(np.concatenate(self._bins), return_inverse=True)
        return bins, np.bincount(inverse, weights=np.concatenate(self._share)) / len(self)


@dataclass(frozen=True, slots=True)
class Split:
    """One re-split of the good pictures: calibrated on so many, and false alarms among the others."""

    n_calibration: int
    n_test: int
    false_alarms: int


@dataclass(frozen=True, slots=True)
class ResplitCheck:
    """Pooled false alarms over re-splits; `interval` is the 95 % interval of the rate when the target is held."""

    target_fpr: float
    n_test: int
    false_alarms: int
    rate: float
    interval: tuple[float, float]

    @property
    def passed(self) -> bool:
        """Whether the rate lies in the interval: too few false alarms fail as well as too many."""
        return self.interval[0] <= self.rate <= self.interval[1]


def calibrate(
    image_scores: F64, pixels: PixelScores, *, folds: int, target_fpr: float, pixel_fpr: float = PIXEL_FPR
) -> Calibration:
    """Thresholds and scales from held-out good pictures.

    `image_scores` (n,) raw scores; `pixels` their maps; `folds` 1 for one held-out set, else the number of folds;
    `target_fpr` is the wanted share of good pictures rejected, `pixel_fpr` of good pixels masked. Raises ValueError
    for fewer than MIN_GOOD scores, scores that are not finite, or rates outside (0, 0.5].
    """
    _check(image_scores, pixels, (target_fpr, pixel_fpr))
    level, estimate = image_level(image_scores, target_fpr, folds)
    masked = pixels.threshold(pixel_fpr)
    return Calibration(
        image=scale(level, float(np.median(image_scores))),
        pixel=scale(masked, pixels.median()),
        image_estimate=estimate,
        pixel_estimate=_pixel_estimate(pixels.exceeding(masked), folds, pixel_fpr),
    )


def image_level(scores: F64, target_fpr: float, folds: int) -> tuple[float, Estimate]:
    """The raw score that a share `target_fpr` of good pictures exceeds, and how it was obtained.

    A picture that scores exactly the level is good; `scale` puts the threshold a hair above it.
    """
    ordered = np.sort(scores)
    n = len(ordered)
    expected = (n + 1) * target_fpr
    allowed = math.floor(expected + 1e-9)  # scores that may lie above a conformal threshold
    if folds == 1 and allowed >= 1:
        level = float(ordered[n - allowed])
        note = "held-out pictures: the mean rate is at most the target for pictures like these"
        return level, _estimate("split-conformal", n, folds, target_fpr, float(allowed), note)
    if expected < _FEW_EXPECTED:
        note = f"{expected:.2g} false alarms expected in {n} held-out pictures, too few to count: exponential tail"
        return tail_level(ordered, target_fpr), _estimate("tail-fit", n, folds, target_fpr, expected, note)
    level = float(np.quantile(ordered, 1 - target_fpr, method="weibull"))
    note = "each picture scored by a model that had not seen it; such models saw fewer pictures than the final one"
    return level, _estimate("k-fold", n, folds, target_fpr, expected, note)


def tail_level(ordered: F64, target_fpr: float) -> float:
    """The level a new score exceeds with probability `target_fpr`: predictive exponential tail, see the module.

    `ordered` (n,) ascending, n >= 4. The k largest exceed u, the one below them, by S in sum; a new score exceeds u
    with probability (k + 1) / (n + 1).
    """
    n = len(ordered)
    k = max(3, n // _TAIL_PICTURES)
    u = float(ordered[n - k - 1])
    total = float((ordered[n - k :] - u).sum())
    growth = (k + 1) / ((n + 1) * target_fpr)
    excess: float = total * (growth ** (1 / k) - 1)
    return u + excess


def scale(level: float, median: float) -> Scale:
    """A scale whose threshold lies just above `level` and whose 0.1 is the median good score.

    Just above: `pred_score >= 0.5` rejects, and must not reject a score equal to the level when computed in float32.
    The width has a floor for scores that hardly differ.
    """
    width = max((level - median) / 4, 1e-5 * abs(level), 1e-12)
    margin = max(4 * float(np.spacing(np.float32(abs(level)))), 1e-6 * width)
    return Scale(threshold=level + margin, width=width)


def resplit_check(splits: Sequence[Split], target_fpr: float) -> ResplitCheck:
    """Whether calibration holds its target over re-splits of good pictures into calibration and test.

    With n calibration scores the true rate is Beta((n + 1) t, (n + 1) (1 - t)), so false alarms among m test pictures
    are beta-binomial; their sum over splits is convolved exactly. For random re-splits and a score that does not depend
    on the split this holds given the pictures; re-splits with refitted models are close to it.
    """
    law = np.ones(1)
    for split in splits:
        a, b = (split.n_calibration + 1) * target_fpr, (split.n_calibration + 1) * (1 - target_fpr)
        law = np.convolve(law, stats.betabinom(split.n_test, a, b).pmf(np.arange(split.n_test + 1)))
    below = np.cumsum(law)
    tail = (1 - _COVERAGE) / 2
    low, high = int(np.searchsorted(below, tail)), int(np.searchsorted(below, 1 - tail))
    total = sum(split.n_test for split in splits)
    alarms = sum(split.false_alarms for split in splits)
    return ResplitCheck(target_fpr, total, alarms, alarms / total, (low / total, high / total))


def card(calibration: Calibration) -> list[tuple[str, str]]:
    """The calibration card: (heading, plain sentence) rows for people."""
    image, pixel = calibration.image_estimate, calibration.pixel_estimate
    rows = [
        ("False alarms", f"target {_percent(image.target_fpr)} of good pictures; expect {_range(image)} (95 %)"),
        ("Threshold", f"raw score {calibration.image.threshold:.5g} is 0.5 on the calibrated scale"),
        ("Obtained by", f"{_how(image)}; {image.note}"),
        ("Mask", f"{_percent(pixel.target_fpr)} of the pixels of good pictures; expect {_range(pixel)} (95 %)"),
        ("Mask threshold", f"raw score {calibration.pixel.threshold:.5g}; {pixel.note}"),
    ]
    if calibration.review is not None:
        at = float(calibration.image.calibrated(np.asarray(calibration.review)))
        rows.append(
            ("Review", f"from {at:.2f} on the calibrated scale (raw {calibration.review:.5g}) to the threshold")
        )
    return rows


def describe(calibration: Calibration) -> str:
    """The calibration card as text, one row a line."""
    rows = card(calibration)
    width = max(len(heading) for heading, _ in rows)
    return "\n".join(f"{heading:<{width}}  {sentence}" for heading, sentence in rows)


def _check(scores: F64, pixels: PixelScores, rates: tuple[float, float]) -> None:
    if scores.ndim != 1 or len(scores) < MIN_GOOD or not np.isfinite(scores).all():
        raise ValueError(f"calibrate: expected at least {MIN_GOOD} finite scores (n,), got {scores!r}")
    if len(pixels) != len(scores):
        raise ValueError(f"calibrate: expected a map for each of {len(scores)} scores, got {len(pixels)}")
    if not all(0 < rate <= 0.5 for rate in rates):
        raise ValueError(f"calibrate: expected rates in (0, 0.5], got {rates}")


def _estimate(how: How, n: int, folds: int, target: float, above: float, note: str) -> Estimate:
    """`above` of n + 1 exchangeable scores lie over the level, so the rate is Beta(above, n + 1 - above)."""
    tail = (1 - _COVERAGE) / 2
    low, high = stats.beta(above, n + 1 - above).ppf([tail, 1 - tail])
    return Estimate(
        target_fpr=target,
        how=how,
        guarantee=how == "split-conformal",
        n_images=n,
        folds=folds,
        interval=(float(low), float(high)),
        note=note,
    )


def _pixel_estimate(shares: F64, folds: int, target: float) -> Estimate:
    """Pixels of one picture go together, so the interval comes from resampling pictures."""
    draws = np.random.default_rng(0).integers(len(shares), size=(_RESAMPLES, len(shares)))
    tail = (1 - _COVERAGE) / 2
    low, high = np.quantile(shares[draws].mean(axis=1), [tail, 1 - tail])
    touched = int(np.count_nonzero(shares))
    return Estimate(
        target_fpr=target,
        how="split-conformal" if folds == 1 else "k-fold",
        guarantee=False,
        n_images=len(shares),
        folds=folds,
        interval=(float(low), float(high)),
        note=f"the mask of {touched} of {len(shares)} held-out good pictures is not empty",
    )


def _bin_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Number of the bin of each value: order-preserving bits of the float32, the last 14 dropped."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    negative = bits >> 31 == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(0x80000000))
    return (ordered >> _BIN_SHIFT).astype(np.int64)


def _edge(number: int) -> float:
    """The lowest value of a bin: the inverse of `_bin_of`."""
    ordered = number << _BIN_SHIFT
    bits = ordered ^ 0x80000000 if ordered & 0x80000000 else ~ordered & 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def _how(estimate: Estimate) -> str:
    source = "one held-out set" if estimate.folds == 1 else f"{estimate.folds} folds"
    kind = "a guarantee" if estimate.guarantee else "an estimate"
    return f"{estimate.how}, {kind}, from {estimate.n_images} good pictures ({source})"


def _range(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{_percent(low)} to {_percent(high)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g} %"
