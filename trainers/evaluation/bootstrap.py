"""How far a figure may be off because it rests on so many pictures and not on more.

Two kinds of 95 % intervals. A share of pictures (false alarms, defects caught) has the exact binomial one (Clopper and
Pearson 1934). Anything else has the percentile bootstrap (Efron and Tibshirani 1993): pictures are drawn again with
replacement, good ones among the good and defective ones among the defective, and the figure is taken of every draw.
Pictures are drawn, not pixels, because the pixels of one picture go together. Two detectors that judged the same
pictures have the same draws.

The bootstrap only knows the pictures there are: where these are told apart without an error, its interval is a point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from engine.types import F64
from trainers.evaluation.metrics import COARSE, Mask, PixelMeter, histogram_aupro, histogram_auroc

COVERAGE = 0.95
RESAMPLES = 1000
SEED = 0
_BATCH = 32  # pictures whose histograms are counted together

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % intervals of an evaluation's figures; None where the figure is None."""

    image_auroc: Interval | None
    pixel_auroc: Interval | None
    pixel_aupro: Interval | None
    f1: Interval | None
    recall: Interval | None
    false_alarm_rate: Interval | None


class Bootstrap:
    """1000 draws from n pictures, of which some are `defective` (n,); the same every time."""

    def __init__(self, defective: Mask) -> None:
        random = np.random.default_rng(SEED)
        self.defective = defective
        self.weights: npt.NDArray[np.uint16] = np.zeros((RESAMPLES, len(defective)), np.uint16)  # how often drawn
        for stratum in (np.flatnonzero(~defective), np.flatnonzero(defective)):
            for row in self.weights:
                drawn = random.integers(0, len(stratum), len(stratum)) if len(stratum) else stratum
                row[stratum] = np.bincount(drawn, minlength=len(stratum))

    def auroc(self, scores: F64) -> Interval | None:
        """Of the image AUROC of scores (n,)."""
        levels, rank = np.unique(scores, return_inverse=True)

        def histogram(row: npt.NDArray[np.uint16], of: Mask) -> F64:
            return np.bincount(rank[of], row[of], len(levels)).astype(np.float64)

        each = [
            histogram_auroc(histogram(row, ~self.defective), histogram(row, self.defective)) for row in self.weights
        ]
        return _middle(np.array(each))

    def f1(self, rejected: Mask) -> Interval | None:
        """Of F1, where these (n,) pictures are rejected."""
        if not self.defective.any():
            return None
        right = self.weights @ (self.defective & rejected).astype(np.float64)
        wrong = self.weights @ (self.defective != rejected).astype(np.float64)
        return _middle(2 * right / (2 * right + wrong))


class PixelBootstrap:
    """The pixel figures of every draw, one picture in memory at a time, on maps of 1024 levels.

    The memory does not grow with the pictures: 24 MB for the draws' histograms.
    """

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._weights = bootstrap.weights
        self._histograms: F64 = np.zeros((3, RESAMPLES, COARSE))  # free pixels, anomalous ones, shares of regions
        self._regions: F64 = np.zeros(RESAMPLES)
        self._waiting: list[tuple[int, F64]] = []

    def add(self, picture: int, meter: PixelMeter) -> None:
        """Take in what a meter has seen of one picture, by its place among the n."""
        histograms, regions = meter.coarse()
        self._waiting.append((picture, histograms))
        self._regions += self._weights[:, picture] * float(regions)
        if len(self._waiting) == _BATCH:
            self._count()

    def auroc(self) -> Interval | None:
        """Of the pixel AUROC."""
        self._count()
        return _middle(histogram_auroc(self._histograms[0], self._histograms[1]))

    def aupro(self) -> Interval | None:
        """Of AUPRO."""
        self._count()
        free, _, shares = self._histograms
        draws = np.array_split(np.arange(len(free)), len(free) // _BATCH + 1)  # in parts, to save memory
        return _middle(np.concatenate([histogram_aupro(free[i], shares[i], self._regions[i]) for i in draws]))

    def _count(self) -> None:
        if not self._waiting:
            return
        weights = self._weights[:, [picture for picture, _ in self._waiting]].astype(np.float64)  # (draws, batch)
        for i, total in enumerate(self._histograms):
            each = np.stack([histograms[i] for _, histograms in self._waiting])  # (batch, levels)
            if each.any():
                total += weights @ each
        self._waiting.clear()


def share_interval(count: int, n: int) -> Interval | None:
    """Of a share of `count` in n pictures: the exact binomial one; None without pictures."""
    if not n:
        return None
    found = stats.binomtest(count, n).proportion_ci(COVERAGE, method="exact")
    return float(found.low), float(found.high)


def _middle(values: F64) -> Interval | None:
    """The middle 95 % of the draws in which the figure is defined; None where there is none."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
