"""An ensemble calibrated and judged over re-splits of good pictures that no member has learnt from.

Each re-split fits tails, level and the cascade's limit to four fifths of the pictures and judges the others by them.
All re-splits are of the same pictures. Where a threshold is a rank among them, false alarms are beta-binomial given
these pictures, and re-splits are independent of each other (`trainers.calibration.thresholds.resplit_check`). Where it
lies beyond the pictures that there are, at a target of 0.5 % of 84 say, they are not: a picture that sticks out is a
false alarm in every re-split that judges it, and 40 re-splits of 105 pictures tell no more of rare ones than 105
pictures do. So the interval is found by running the same re-splits on made-up pictures: as many, of members that go
together as these do, whose scores keep the calibration's promise (exponential tails). Like the beta-binomial one it
fails rates that are too low as well as such that are too high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.cascade import DEFAULT_BOUND, MADE_UP, Limit, Mixture, Outcome, Pairs, exit_limit, outcome
from engine.contract import Tail
from engine.types import F64
from trainers.calibration.tails import fit_tail
from trainers.dataset.good import blocks
from trainers.ensemble import copula
from trainers.ensemble.joint import FOLDS, Levels

RESPLITS = 40
_MADE_UP = 100  # sets of pictures


Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Resplits:
    """Pooled over re-splits of n pictures: how many frames were `judged`, the rate of false alarms at each target with
    the 95 % interval if it is held, and the shares of frames that exit the cascade, and that do so wrongly."""

    n: int
    judged: int
    targets: tuple[float, ...]
    rates: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    exits: float
    disagreement: float


def resplit(good: F64, copies: F64, mixture: Mixture, targets: tuple[float, ...], cascade_target: float) -> Resplits:
    """Of raw scores (M, n), of the first member first; the cascade, which heeds `copies` with synthetic defects
    (M, k), is judged at one target."""
    random = np.random.default_rng(0)
    made_up = [copula.made_up(good, random.normal(size=good.shape)) for _ in range(_MADE_UP)]
    low, high = np.quantile([_rates(each, mixture, targets) for each in made_up], [0.025, 0.975], axis=0)
    splits = _splits(good.shape[1])
    outcomes = [_cascade(good, copies, mixture, cascade_target, *rows) for rows in splits]
    return Resplits(
        n=good.shape[1],
        judged=sum(len(judged) for _, judged in splits),
        targets=targets,
        rates=_rates(good, mixture, targets),
        intervals=tuple(zip(map(float, low), map(float, high), strict=True)),
        exits=float(np.mean([each.exits for each in outcomes])),
        disagreement=float(np.mean([each.disagreement for each in outcomes])),
    )


def surprises(tails: list[Tail], raw: F64) -> list[F64]:
    """(M, n) raw scores -> (n,) of each member."""
    return [tail.of(each) for tail, each in zip(tails, raw, strict=True)]


def fused(tails: list[Tail], raw: F64, mixture: Mixture) -> F64:
    """(M, n) raw scores -> (n,) fused ones."""
    return pairs_of(tails, raw, mixture).fused


def cross_fitted(good: F64, mixture: Mixture) -> Pairs:
    """Good pictures, each by the tails of the other blocks."""
    everything = np.arange(good.shape[1])
    found = [
        pairs_of(fit_tails(good[:, np.setdiff1d(everything, part)]), good[:, part], mixture)
        for part in blocks(len(everything), FOLDS)
    ]
    return Pairs.joined(found)


def fit_tails(good: F64) -> list[Tail]:
    """Of raw scores (M, n)."""
    return [fit_tail(each) for each in good]


def levels(good: F64, mixture: Mixture, targets: tuple[float, ...]) -> list[float]:
    """As `trainers.ensemble.joint.fuse_jointly` finds them."""
    find, scores = Levels(copula.simulated(good, mixture)), cross_fitted(good, mixture).fused
    return [find(scores, target, FOLDS)[0] for target in targets]


def limit_of(good: F64, copies: F64, mixture: Mixture, level: float) -> Limit:
    """Of the cascade at its default bound, as `trainers.ensemble.fuse` finds it; `copies` (M, k) have defects."""
    frames = {
        "good": cross_fitted(good, mixture),
        "synthetic": pairs_of(fit_tails(good), copies, mixture),
        MADE_UP: copula.simulated(good, mixture),
    }
    return exit_limit(frames, mixture, level, DEFAULT_BOUND)


def pairs_of(tails: list[Tail], raw: F64, mixture: Mixture) -> Pairs:
    """(M, n) raw scores -> the first member's surprises and the fused ones."""
    return mixture.pairs(surprises(tails, raw))


def _splits(n: int) -> list[tuple[Rows, Rows]]:
    """Pictures to fit to, and pictures to judge."""
    orders = [np.random.default_rng(seed).permutation(n) for seed in range(RESPLITS)]
    return [(order[: 4 * n // 5], order[4 * n // 5 :]) for order in orders]


def _rates(good: F64, mixture: Mixture, targets: tuple[float, ...]) -> tuple[float, ...]:
    alarms, judged = np.zeros(len(targets)), 0
    for fitting, others in _splits(good.shape[1]):
        known = good[:, fitting]
        scores = fused(fit_tails(known), good[:, others], mixture)
        found = levels(known, mixture, targets)
        alarms += (scores[:, None] > found).sum(axis=0)
        judged += len(others)
    return tuple(map(float, alarms / judged))


def _cascade(good: F64, copies: F64, mixture: Mixture, target: float, fitting: Rows, others: Rows) -> Outcome:
    known = good[:, fitting]
    (level,) = levels(known, mixture, (target,))
    unseen = pairs_of(fit_tails(known), good[:, others], mixture)
    return outcome(unseen, limit_of(known, copies, mixture, level), level)
