"""Thresholds from good pictures only, for a wanted rate of false alarms.

The scores must be held out: each from a model that did not see the picture. There are two ways to get them.

- One held-out set (`folds=1`): some pictures are never trained on. For exchangeable pictures the split-conformal rank
  then guarantees a mean false-alarm rate of at most the target (Vovk et al. 2005; Angelopoulos and Bates 2021).
- k folds: each block of pictures is scored by a model trained on the others, the final model is trained on all. This
  wastes none, but gives an estimate. Its bias: a fold's model saw a share 1 - 1/k of the pictures, fits a little worse
  and scores held-out pictures a little higher than the final model will, so the threshold comes out high and the rate
  too low. Many folds are the cure (contiguous blocks, see `trainers.dataset.good.blocks`; a Gaussian is cheap to
  refit): for per-position Gaussians of 100 channels on 320 pictures the median held-out score was 11.2, 10.6, 10.5,
  10.5 and 10.5 with 2, 5, 10, 20 and 40 folds. Use 20 where that is
  affordable; `resplit_check` shows what is left of the bias.

With fewer than three false alarms expected among the held-out pictures a quantile would rest on the largest one or two
scores. A fitted tail takes its place: excesses over a high score of a maximum over positions are nearly exponential
(its distribution is in the Gumbel domain), and the predictive law of the next excess over k that sum to S is
P(excess > x) = (1 + x / S)^-k, which makes the mean rate exact for exponential tails however small k is. With
k = max(3, n / 15), over 11 laws from normal to Pareto, the mean rate was 0.6 to 1.5 times a target of 1 % at n = 15,
0.7 to 1.4 times at n = 30, 0.9 to 1.1 times at n = 100 (the plain quantile: 6, 3 and 1 times, with a larger error
throughout). Fitted generalised Pareto, normal and log-normal tails came out worse.

The mask's threshold is set the same way on the maps' peaks, for the share of good pictures that show any masked pixel:
five times the target, but at most 5 % (or the target, if that is more). It lies below the picture's threshold where
the score is the map's peak, so a rejected picture shows where, while nearly all good pictures show nothing. A quantile
of pooled pixels was worse: a few odd pictures with large areas decided it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special, stats

from engine.contract import Calibration, Estimate, Scale
from engine.types import F32, F64
from trainers.dataset.good import MIN_GOOD

How = Literal["split-conformal", "k-fold", "tail-fit"]

_MASK_FACTOR, _MASK_RATE = 5, 0.05
_COVERAGE = 0.95
_FEW_EXPECTED = 3.0  # below so many expected false alarms the tail is fitted
_TAIL_PICTURES = 15  # one excess per so many pictures


FindLevel = Callable[[F64, float, int], tuple[float, Estimate]]  # see `level_of`


class PixelScores:
    """What the maps of held-out good pictures scored: the peak and the median of each."""

    def __init__(self) -> None:
        self._peaks: list[F32] = []
        self._medians: list[F32] = []

    def add(self, maps: F32) -> None:
        """Take in raw maps (N, H, W)."""
        self._peaks.append(maps.max(axis=(1, 2)))
        self._medians.append(np.median(maps, axis=(1, 2)))

    @property
    def peaks(self) -> F64:
        """(n,) the largest value of each map, in the order they came."""
        return np.concatenate([np.empty(0), *self._peaks])

    @property
    def medians(self) -> F64:
        """(n,) the median of each map."""
        return np.concatenate([np.empty(0), *self._medians])


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
    image_scores: F64, pixels: PixelScores, *, folds: int, target_fpr: float, find: FindLevel | None = None
) -> Calibration:
    """Thresholds and scales from held-out good pictures.

    `image_scores` (n,) raw scores; `pixels` what their maps scored; `folds` 1 for one held-out set, else the number of
    folds; `target_fpr` is the wanted share of good pictures rejected; `find` finds the pictures' level, None:
    `level_of`. Raises ValueError for fewer than MIN_GOOD scores, scores that are not finite, or a rate outside
    (0, 0.5].
    """
    peaks = pixels.peaks
    _check(image_scores, target_fpr)
    _check(peaks, target_fpr)
    level, image_estimate = (find or level_of)(image_scores, target_fpr, folds)
    mask_rate = max(target_fpr, min(_MASK_FACTOR * target_fpr, _MASK_RATE))
    mask_level, pixel_estimate = level_of(peaks, mask_rate, folds)
    if np.allclose(image_scores, peaks, rtol=1e-4):  # the score is the map's maximum
        mask_level = min(mask_level, level)
    return Calibration(
        image=scale(level, float(np.median(image_scores))),
        pixel=scale(mask_level, float(np.median(pixels.medians))),
        image_estimate=image_estimate,
        pixel_estimate=pixel_estimate,
    )


def level_of(scores: F64, target_fpr: float, folds: int) -> tuple[float, Estimate]:
    """The raw value that a share `target_fpr` of good pictures exceeds, and how it was obtained.

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
        ("Mask", f"shows a spot on {_percent(pixel.target_fpr)} of good pictures; expect {_range(pixel)} (95 %)"),
        (
            "Mask threshold",
            f"raw value {calibration.pixel.threshold:.5g} is 0.5 on the calibrated scale; {_how(pixel)}",
        ),
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


def _check(scores: F64, target_fpr: float) -> None:
    if scores.ndim != 1 or len(scores) < MIN_GOOD or not np.isfinite(scores).all():
        raise ValueError(f"calibrate: expected at least {MIN_GOOD} finite scores (n,), got {scores!r}")
    if not 0 < target_fpr <= 0.5:
        raise ValueError(f"calibrate: expected a target rate in (0, 0.5], got {target_fpr}")


def _estimate(how: How, n: int, folds: int, target: float, above: float, note: str) -> Estimate:
    """`above` of n + 1 exchangeable scores lie over the level, so the rate is Beta(above, n + 1 - above)."""
    tail = (1 - _COVERAGE) / 2
    low, high = special.betaincinv(above, n + 1 - above, [tail, 1 - tail])
    return Estimate(
        target_fpr=target,
        how=how,
        guarantee=how == "split-conformal",
        n_images=n,
        folds=folds,
        interval=(float(low), float(high)),
        note=note,
    )


def _how(estimate: Estimate) -> str:
    source = "one held-out set" if estimate.folds == 1 else f"{estimate.folds} folds"
    kind = "a guarantee" if estimate.guarantee else "an estimate"
    return f"{estimate.how}, {kind}, from {estimate.n_images} good pictures ({source})"


def _range(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{_percent(low)} to {_percent(high)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g} %"
