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
from sklearn.metrics import auc, f1_score, roc_auc_score, roc_curve

from engine.types import F64

LEVELS = 65536
FPR_LIMIT = 0.3

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
            total._free += meter._free
            total._anomalous += meter._anomalous
            total._region_share += meter._region_share
            total._regions += meter._regions
        return total

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

    def auroc(self) -> float | None:
        """Pixel AUROC pooled over all pixels, ties counting half; None without anomalous or without free pixels."""
        free, anomalous = self._free.sum(), self._anomalous.sum()
        if not free or not anomalous:
            return None
        below = np.cumsum(self._free) - self._free / 2
        return float(self._anomalous @ below / (free * anomalous))

    def aupro(self, fpr_limit: float = FPR_LIMIT) -> float | None:
        """Area under the per-region-overlap curve up to `fpr_limit`, over `fpr_limit`; None where undefined."""
        if not self._free.sum() or not self._regions:
            return None
        fpr = np.concatenate([[0.0], np.cumsum(self._free[::-1]) / self._free.sum()])
        overlap = np.concatenate([[0.0], np.cumsum(self._region_share[::-1]) / self._regions])
        return _area_to(fpr, overlap, fpr_limit) / fpr_limit


def _area_to(x: F64, y: F64, limit: float) -> float:
    """Trapezoidal area under y(x) for x from 0 to `limit`; x ascends from 0 to 1 and may stand still."""
    end = int(np.searchsorted(x, limit, side="right"))  # x[end - 1] <= limit < x[end]
    if end == len(x):
        return float(auc(x, y))
    step = (limit - x[end - 1]) / (x[end] - x[end - 1])
    last = y[end - 1] + step * (y[end] - y[end - 1])
    return float(auc(np.append(x[:end], limit), np.append(y[:end], last)))
