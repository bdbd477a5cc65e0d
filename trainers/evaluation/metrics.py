"""Image and pixel metrics, streaming and in bounded memory.

Pixel metrics are taken on maps as the engine publishes them: 65,536 levels, so a histogram holds everything that a
sorted list of all pixels would, and the areas are exact. AUPRO follows the MVTec AD definition (Bergmann et al. 2021):
the mean over ground-truth regions (8-connected) of the share of the region that is found, against the share of
anomaly-free pixels of all pictures that are marked, integrated up to 0.3 and divided by 0.3.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from engine.types import F64

LEVELS = 65536
FPR_LIMIT = 0.3
PRO_RATES = np.linspace(0, FPR_LIMIT, 151)  # of false pixels, at which a PRO curve is given
COARSE = 1024
_COARSE_STARTS = np.searchsorted(np.sqrt(np.arange(LEVELS) * COARSE**2 / LEVELS), np.arange(COARSE))

Mask = npt.NDArray[np.bool_]


def image_auroc(good: F64, defective: F64) -> float | None:
    """Area under the ROC curve of two sets of scores; None where one is empty."""
    if not len(good) or not len(defective):
        return None
    truth = np.concatenate([np.zeros(len(good)), np.ones(len(defective))])
    return float(roc_auc_score(truth, np.concatenate([good, defective])))


def image_roc(good: F64, defective: F64) -> tuple[F64, F64]:
    """False-alarm and detection rates (m,) of every threshold, both from 0 to 1; neither set may be empty."""
    truth = np.concatenate([np.zeros(len(good)), np.ones(len(defective))])
    fpr, tpr, _ = roc_curve(truth, np.concatenate([good, defective]))
    return np.asarray(fpr, np.float64), np.asarray(tpr, np.float64)


def f1(good_rejected: Mask, defective_rejected: Mask) -> float | None:
    """Harmonic mean of precision and recall at the threshold, 0 where nothing is rejected; None without defects."""
    if not len(defective_rejected):
        return None
    truth = np.concatenate([np.zeros(len(good_rejected), bool), np.ones(len(defective_rejected), bool)])
    return float(f1_score(truth, np.concatenate([good_rejected, defective_rejected]), zero_division=0.0))


class PixelMeter:
    """Histograms over the 65,536 map levels: anomaly-free pixels, anomalous pixels, and shares of regions."""

    def __init__(self) -> None:
        self._free: F64 = np.zeros(LEVELS)
        self._anomalous: F64 = np.zeros(LEVELS)
        self._region_share: F64 = np.zeros(LEVELS)  # each region weighs 1 in all
        self._regions = 0

    @classmethod
    def total(cls, meters: Iterable[PixelMeter]) -> PixelMeter:
        """One meter that has seen what the given ones saw."""
        total = cls()
        for meter in meters:
            total.take(meter)
        return total

    def take(self, other: PixelMeter) -> None:
        """Take in what another meter has seen."""
        self._free += other._free
        self._anomalous += other._anomalous
        self._region_share += other._region_share
        self._regions += other._regions

    def add(self, values: npt.NDArray[np.uint16], mask: Mask | None) -> None:
        """Take in a map (H, W) of levels and its ground truth (H, W), None where the picture is good."""
        if mask is None:
            self._free += np.bincount(values.ravel(), minlength=LEVELS)
            return
        if mask.shape != values.shape:
            raise ValueError(f"PixelMeter: expected a mask of the map's shape {values.shape}, got {mask.shape}")
        self._free += np.bincount(values[~mask], minlength=LEVELS)
        self._anomalous += np.bincount(values[mask], minlength=LEVELS)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        inside = labels[mask]  # (M,) 1..count-1
        weight = 1 / np.bincount(inside, minlength=count)[inside]
        self._region_share += np.bincount(values[mask], weights=weight, minlength=LEVELS)
        self._regions += count - 1

    def coarse(self) -> tuple[F64, int]:
        """(3, 1024) free pixels, anomalous pixels and shares of regions by square root of the level, and the regions.

        The square root keeps the steps small where the many pixels of a good picture are.
        """
        whole = np.stack([self._free, self._anomalous, self._region_share])
        return np.add.reduceat(whole, _COARSE_STARTS, axis=1), self._regions

    def auroc(self) -> float | None:
        """Pixel AUROC pooled over all pixels, ties counting half; None without anomalous or without free pixels."""
        if not self._free.any() or not self._anomalous.any():
            return None
        return float(histogram_auroc(self._free, self._anomalous))

    def aupro(self, fpr_limit: float = FPR_LIMIT) -> float | None:
        """Area under the per-region-overlap curve up to `fpr_limit`, over `fpr_limit`; None where undefined."""
        if not self._free.any() or not self._regions:
            return None
        return float(histogram_aupro(self._free, self._region_share, np.asarray(self._regions, np.float64), fpr_limit))

    def pro(self) -> F64 | None:
        """The per-region overlap (151,) at the rates of false pixels PRO_RATES; None where undefined."""
        if not self._free.any() or not self._regions:
            return None
        curve = _pro_curve(self._free, self._region_share, np.asarray(self._regions, np.float64))
        return _at(*curve, PRO_RATES)


def histogram_auroc(free: F64, anomalous: F64) -> F64:
    """AUROC of histograms (..., L) over ascending levels -> (...), ties counting half; nan where one is empty."""
    below = np.cumsum(free, axis=-1) - free / 2
    pairs = free.sum(axis=-1) * anomalous.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray((anomalous * below).sum(axis=-1) / pairs)


def histogram_aupro(free: F64, region_share: F64, regions: F64, fpr_limit: float = FPR_LIMIT) -> F64:
    """AUPRO of histograms (..., L) over ascending levels, of so many regions (...) -> (...); nan where undefined."""
    with np.errstate(invalid="ignore"):
        fpr, overlap = _pro_curve(free, region_share, regions)
        return _area_to(fpr, overlap, fpr_limit) / fpr_limit


def _pro_curve(free: F64, region_share: F64, regions: F64) -> tuple[F64, F64]:
    """The share of false pixels and the per-region overlap (..., L + 1) of every threshold, from the highest down."""
    start = np.zeros((*free.shape[:-1], 1))
    fpr = np.cumsum(free[..., ::-1], axis=-1) / free.sum(axis=-1, keepdims=True)
    overlap = np.cumsum(region_share[..., ::-1], axis=-1) / np.expand_dims(regions, -1)
    return np.concatenate([start, fpr], axis=-1), np.concatenate([start, overlap], axis=-1)


def _area_to(x: F64, y: F64, limit: float) -> F64:
    """Trapezoidal area (...) under y(x) (..., m) for x from 0 to `limit`; x ascends from 0 and may stand still."""
    x0, width = x[..., :-1], np.diff(x, axis=-1)
    inside = np.clip(limit - x0, 0, width)  # what of a segment counts
    share = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    return np.asarray((inside * (y[..., :-1] + share / 2 * np.diff(y, axis=-1))).sum(axis=-1))


def _at(x: F64, y: F64, at: F64) -> F64:
    """y(x) at some x, on straight lines between the points; where x stands still, the last y counts."""
    end = np.minimum(np.searchsorted(x, at, side="right"), len(x) - 1)  # x[end - 1] <= at < x[end]
    x0, x1 = x[end - 1], x[end]
    step = np.divide(at - x0, x1 - x0, out=np.ones_like(at), where=x1 > x0)
    return np.asarray(y[end - 1] + step * (y[end] - y[end - 1]))
