"""From scores of good pictures, or pixels, to their tail probability: `engine.contract.Tail`.

The body is empirical: a few quantiles of -log(1 - rank / (n + 1)), joined by a monotone cubic, so that it is smooth and
strictly increasing where a step function would tie scores (and tell backends apart that differ in the last digit). The
tail is that of `trainers.calibration.thresholds`: the predictive law of an exponential tail known from its k largest
excesses.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from engine.contract import Tail
from engine.types import F64

_LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997)  # of the knots
_PER_EXCESS = 15
_EXCESSES = (3, 200)  # at least and at most
_APART = 1.3  # between a knot's tail probability and the last one's
_LEAST_SLOPE = 1e-3  # of the chord


def fit_tail(scores: F64) -> Tail:
    """The tail of exchangeable scores (n,), n >= 8; raises ValueError where they hardly differ."""
    ordered = np.sort(scores)
    n = len(ordered)
    k = int(np.clip(n // _PER_EXCESS, *_EXCESSES))
    last = 1 - (k + 1) / (n + 1)
    levels = [q for q in _LEVELS if q >= 1 / (n + 1) and 1 - q > _APART * (1 - last)]
    q = np.array([*levels, last])
    knots, kept = np.unique(np.quantile(ordered, q, method="weibull"), return_index=True)
    surprise = -np.log1p(-q[kept])
    if len(knots) < 2 or knots[-1] - knots[0] <= 1e-9 * abs(knots[-1]):
        raise ValueError(f"the scores of {n} good pictures hardly differ ({knots[0]:g} to {ordered[-1]:g})")
    chords = np.diff(surprise) / np.diff(knots)
    excess = float((ordered[n - k :] - ordered[n - k - 1]).sum())
    rate = k / excess if excess > 0 else float(chords[-1])
    return Tail(
        knots=tuple(map(float, knots)),
        surprise=tuple(map(float, surprise)),
        slopes=tuple(map(float, _slopes(knots, surprise, chords, rate))),
        rate=rate,
        shape=float(k),
    )


def _slopes(knots: F64, surprise: F64, chords: F64, rate: float) -> F64:
    """Derivatives that keep every cubic increasing (Fritsch and Carlson 1980); at the end, the tail's as far as so."""
    slopes: F64 = np.full(len(knots), chords[0])
    if len(knots) > 2:
        slopes = np.asarray(PchipInterpolator(knots, surprise).derivative()(knots), np.float64)
    slopes[-1] = rate
    before, after = np.append(chords[0], chords), np.append(chords, chords[-1])
    return np.clip(slopes, _LEAST_SLOPE * np.minimum(before, after), 3 * np.minimum(before, after))
