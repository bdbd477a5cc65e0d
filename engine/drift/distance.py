"""The two-sample Kolmogorov-Smirnov distance, and which distances chance reaches how often.

The distribution under exchangeability is exact for any two sample sizes, because it counts orderings (Hodges 1958, Ark.
Mat. 3; Gnedenko and Korolyuk 1951): of the equally likely lattice paths from (0, 0) to (n, m), those that leave a band
around the diagonal. So it holds for scores of whatever law, and for a small reference as it does for a large one; with
ties it errs on the safe side.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from engine.types import F64

_STEPS = 1024  # distances are told apart to one part in so many


def distance(reference: F64, window: F64) -> float:
    """Ascending samples (n,) and (m,) -> their signed distance: positive where the window lies mainly higher."""
    m = len(window)
    at_most = np.searchsorted(reference, window, side="right") / len(reference)
    below = np.searchsorted(reference, window, side="left") / len(reference)
    higher = float((below - np.arange(m) / m).max())
    lower = float((np.arange(1, m + 1) / m - at_most).max())
    return higher if higher >= lower else -lower


@lru_cache(maxsize=64)
def critical(n: int, m: int, chance: float) -> float:
    """The least distance, to one part in 1024, that samples of n and m reach with at most this probability.

    Above 1, which none reaches, where even the largest distance is more probable.
    """
    low, high = 0, _STEPS + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if probability(n, m, middle / _STEPS) <= chance else (middle, high)
    return high / _STEPS


def probability(n: int, m: int, least: float) -> float:
    """That the distance of exchangeable samples of n and m, without ties, is `least` or more.

    `inside[i]` is the share of the paths to (i, step - i) that have stayed inside the band: such a path comes from
    (i - 1, step - i) with probability i / step, else from (i, step - i - 1). Shares do not overflow as counts would.
    """
    few, many = min(n, m), max(n, m)
    i = np.arange(few + 1)
    inside = np.zeros(few + 1)
    inside[0] = 1.0
    for step in range(1, few + many + 1):
        up = i[1:] * inside[:-1]
        inside = (step - i) * inside
        inside[1:] += up
        inside /= step
        j = step - i
        inside[(np.abs(i / few - j / many) >= least - 1e-9) | (j < 0) | (j > many)] = 0.0
    return float(1 - inside[-1])
