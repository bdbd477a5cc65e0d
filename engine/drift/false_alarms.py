"""What a shift of the scores does to false alarms: the share of good frames that lie beyond the threshold now.

Which of the recent frames are good nobody knows, but most are. So the shift is read off the middle half of their
scores, which a few defects do not move: its median and its width, against those of the reference. Good frames are taken
to score as in training but for that shift, and the training's tail says how many of them then reach the threshold. It
is the tail that thresholds are set by (`trainers.calibration.thresholds`): empirical up to the k largest, beyond them
P(excess > x) = (1 + x / S)^-k.
"""

from __future__ import annotations

import numpy as np

from engine.types import F64

_TAIL_PICTURES = 15  # one excess per so many, as in calibration
_LEAST_EXCESSES = 3
_QUARTILES = (0.25, 0.5, 0.75)


def false_alarm_rate(reference: F64, recent: F64, threshold: float) -> float:
    """Held-out good scores (n,) ascending, n >= 5, recent scores (m,), all raw -> the estimated rate, 0..1."""
    low, median, high = np.quantile(reference, _QUARTILES)
    low_now, median_now, high_now = np.quantile(recent, _QUARTILES)
    measurable = high > low and high_now > low_now
    stretch = float((high_now - low_now) / (high - low)) if measurable else 1.0
    return tail_probability(reference, float(median + (threshold - median_now) / stretch))


def tail_probability(ordered: F64, level: float) -> float:
    """That one more score exceeds `level`: the inverse of `trainers.calibration.thresholds.tail_level` in the tail."""
    n = len(ordered)
    k = max(_LEAST_EXCESSES, n // _TAIL_PICTURES)
    body = ordered[n - k - 1]
    if level <= body:
        above = 1 - np.arange(1, n + 1) / (n + 1)
        return float(np.interp(level, ordered, above, left=1.0))
    total = float((ordered[n - k :] - body).sum())
    if total <= 0:
        return 0.0
    return (k + 1) / (n + 1) * (1 + (level - float(body)) / total) ** -k
