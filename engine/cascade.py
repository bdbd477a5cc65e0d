"""When the cheapest member of an ensemble may speak for all of them. Pure; numbers in, numbers out.

A frame *exits* as good where the first member's surprise is at most a limit; the others do not run. The full ensemble
would have disagreed where its fused score reaches the level from which a frame is not good. The limit is the largest
one that bounds the rate of that among good frames exchangeable with those it rests on, n of them held out:

- `conformal`, where (n + 1) * bound is at least 1: the number of disagreements d of those n must keep
  (d + 1) / (n + 1) <= bound. The rate then holds in the mean (conformal risk control, Angelopoulos et al. 2022: the
  loss grows with the limit). It is a guarantee as far as the frames were scored by models that had not seen them.
- `tail-fit`, with fewer frames: the share that exits, times the chance that a fused score among them reaches the level
  by the predictive exponential tail of `trainers.calibration.thresholds`. An estimate.

Only good verdicts exit: what is rejected is rare, and its map should show what all members see. Good frames say nothing
about defects: those that would slip through are counted on synthetic and, where there are any, labelled ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from engine.errors import BundleError
from engine.types import F64

DEFAULT_BOUND = 0.002
KINDS = ("good", "synthetic", "labelled")
_TAIL_FRAMES = 15  # one excess per so many frames, as in trainers.calibration.thresholds
_MIN_EXITS = 20  # fewer say nothing about a tail


@dataclass(frozen=True, slots=True)
class Pairs:
    """Of n frames: the first member's surprise and the fused one, (n,) each."""

    first: F64
    fused: F64


@dataclass(frozen=True, slots=True)
class Limit:
    """Frames with a first surprise of at most `surprise` (-inf: none) exit; `n` good frames, held out, say so."""

    surprise: float
    bound: float
    how: Literal["conformal", "tail-fit"]
    n: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a limit does to n frames: the share that exits, and the share that exits though the ensemble disagrees."""

    n: int
    exits: float
    disagreement: float


def exit_limit(good: Pairs, level: float, bound: float) -> Limit:
    """The limit for a fused `level` from which a frame is not good, and a bound on the disagreement."""
    n = len(good.first)
    allowed = math.floor((n + 1) * bound + 1e-9)
    if allowed >= 1:
        wrong = np.sort(good.first[good.fused >= level])
        highest = np.inf if len(wrong) < allowed else np.nextafter(wrong[allowed - 1], -np.inf)
    else:
        highest = _by_tail(good, level, bound)
    return Limit(min(float(highest), _below(level)), bound, "conformal" if allowed >= 1 else "tail-fit", n)


def outcome(pairs: Pairs, limit: Limit, level: float) -> Outcome:
    """What the limit does to frames."""
    if not len(pairs.first):
        return Outcome(0, 0.0, 0.0)
    exits = pairs.first <= limit.surprise
    return Outcome(len(exits), float(exits.mean()), float((exits & (pairs.fused >= level)).mean()))


def exceedance(scores: F64, level: float) -> float:
    """The chance that one more score reaches `level`: the inverse of `trainers.calibration.thresholds.tail_level`."""
    ordered = np.sort(scores)
    n = len(ordered)
    k = max(3, n // _TAIL_FRAMES)
    u = ordered[n - k - 1]
    if level <= u:
        return float((np.count_nonzero(ordered >= level) + 1) / (n + 1))
    total = float((ordered[n - k :] - u).sum())
    return (k + 1) / (n + 1) * (1 + float(level - u) / max(total, 1e-12)) ** -k


def read(path: Path) -> dict[str, Pairs]:
    """The frames of a bundle by their kind, see KINDS; raises BundleError where the file is no such file."""
    try:
        found = load_file(path)
        return {kind: Pairs(found[f"{kind}.first"], found[f"{kind}.fused"]) for kind in KINDS}
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{path}: not the frames of a cascade ({error}); fuse the ensemble again") from error


def _by_tail(good: Pairs, level: float, bound: float) -> float:
    order = np.argsort(good.first)
    first, fused = good.first[order], good.fused[order]
    n = len(first)
    for exits in range(n, _MIN_EXITS - 1, -1):
        if exits / n * exceedance(fused[:exits], level) <= bound:
            return float(first[exits - 1])
    return -np.inf


def _below(level: float) -> float:
    """So that the first surprise of what exits is itself a good score on the fused scale."""
    return float(np.nextafter(np.float64(level), -np.inf))
