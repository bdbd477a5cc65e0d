"""The fused level that few good pictures exceed, where there are too few to count: from how members go together.

A member's surprise is about exponential with mean 1 under good pictures, its uncertainty from few pictures included
(`trainers.calibration.tails`: the tail is a predictive law). So the law of a fused score follows from how the members'
scores depend on each other, for which the correlation of their normal scores is taken: a Gaussian copula, all pictures
telling. Brown's (1975) is the same idea for the mean by two moments; this is for any rule. For one member it is its own
tail, and the mean rate is exact where that is exponential.

A tail fitted to cross-fitted fused scores would count the uncertainty twice. In simulations of two members
with 51 pictures and a target of 1 % (correlation 0.3 and 0.7, scores exponential, normal and log-normal) the mean rate
was 0.6 to 0.7 times the target so, and 0.9 to 1.2 times by the copula; with 24 pictures 0.4 to 0.6, and 0.7 to 1.5.
Members that are odd together more often than their correlation says (a t copula of 4 degrees) made it 1.1 to 1.3 times.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import special, stats

from engine.cascade import Mixture, Pairs
from engine.types import F64

_LOG2_DRAWS = 15
_JITTER = 1e-6  # so that members that are one and the same can be drawn
_COUNTED = 50  # draws above a level, at least; beyond that their excess is exponential


def simulated(scores: F64, mixture: Mixture) -> Pairs:
    """Made-up good pictures whose members go together as `scores` (M, n) raw do."""
    return mixture.pairs(list(made_up(scores, _normal(len(scores)))))


def made_up(scores: F64, normal: F64) -> F64:
    """(M, n) surprises, exponential with mean 1, that go together as `scores` do; `normal` (M, n) are independent."""
    members, n = scores.shape
    ranks = np.array([stats.rankdata(each) for each in scores]) / (n + 1)
    correlation = np.atleast_2d(np.corrcoef(special.ndtri(ranks)))
    root = np.linalg.cholesky(correlation + _JITTER * np.eye(members))
    found: F64 = -special.log_ndtr(root @ normal)  # by symmetry
    return found


def level(surprises: F64, target_fpr: float) -> float:
    """What a share `target_fpr` of fused surprises (n,) exceeds."""
    fused = np.sort(surprises)
    least = _COUNTED / len(fused)
    if target_fpr >= least:
        return float(np.quantile(fused, 1 - target_fpr))
    u = fused[-_COUNTED - 1]
    return float(u + (fused[-_COUNTED:] - u).mean() * np.log(least / target_fpr))


@cache
def _normal(members: int) -> F64:
    """(M, draws) independent and normal: a scrambled Sobol sequence, which fills the space more evenly than chance."""
    uniform = stats.qmc.Sobol(members, rng=np.random.default_rng(0)).random_base2(_LOG2_DRAWS)
    found: F64 = special.ndtri(uniform.T)
    return found
