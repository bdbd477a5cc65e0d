"""When the cheapest member of an ensemble may speak for all of them. Pure; numbers in, numbers out.

A frame *exits* as good where the first member's surprise is at most a limit; the others do not run. The full ensemble
would have disagreed where its fused score reaches the level from which a frame is not good. The limit is the largest
one that bounds the rate of that among good frames exchangeable with those it rests on, n of them held out:

- `conformal`, where (n + 1) * bound is at least 1: the number of disagreements d of those n must keep
  (d + 1) / (n + 1) <= bound. The rate then holds in the mean (conformal risk control, Angelopoulos et al. 2022: the
  loss grows with the limit). It is a guarantee as far as the frames were scored by models that had not seen them.
- `tail-fit`, with fewer frames: the same count on many made-up ones, whose members' surprises are exponential with mean
  1, as their tails were fitted, and go together as those of the held-out frames do (`trainers.ensemble.copula`). An
  estimate.

Only good verdicts exit: what is rejected is rare, and its map should show what all members see. Good frames say nothing
about defects: those that would slip through are counted on synthetic and, where there are any, labelled ones. Whatever
the bound, none of the synthetic ones that the full ensemble finds exits, so a cheap member that sees little speaks for
few frames; nor does a frame that the others need only find a little odd to change its verdict (`Mixture.settled`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from engine.contract import Rule
from engine.errors import BundleError
from engine.fusion import fuse
from engine.types import F64

DEFAULT_BOUND = 0.002
DEFECT_SHARE = 0.01  # of the frames, for a mean cost
KINDS = ("good", "synthetic", "labelled")
MADE_UP = "made_up"
_ODD = 0.99
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Pairs:
    """Of n frames: the first member's surprise and the fused one, (n,) each."""

    first: F64
    fused: F64

    @staticmethod
    def joined(parts: Sequence[Pairs]) -> Pairs:
        """The frames of all parts."""
        return Pairs(np.concatenate([part.first for part in parts]), np.concatenate([part.fused for part in parts]))


@dataclass(frozen=True, slots=True)
class Mixture:
    """How members are fused, the first one first; weights count in a mean only."""

    weights: tuple[float, ...]
    rule: Rule

    def pairs(self, surprises: Sequence[F64]) -> Pairs:
        """Of n frames the surprises of all members, (n,) each."""
        return Pairs(surprises[0], fuse(surprises, self.weights, self.rule))

    def settled(self, made_up: Pairs, level: float) -> float:
        """The first surprise up to which a frame stays good though the others together find it odder than 99 of 100
        made-up good ones; by the maximum any below the level."""
        if self.rule == "max":
            return level
        first, total = self.weights[0], sum(self.weights)
        others = (total * made_up.fused - first * made_up.first) / (total - first)
        return float(total * level - (total - first) * np.quantile(others, _ODD)) / first


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


def exit_limit(frames: Mapping[str, Pairs], mixture: Mixture, level: float, bound: float) -> Limit:
    """The limit for a fused `level` from which a frame is not good, and a bound on the disagreement.

    Of frames by their kind, as `read` gives them: good, made up and synthetic ones count.
    """
    good, made_up = frames["good"], frames[MADE_UP]
    n = len(good.first)
    counted = (n + 1) * bound >= 1 - _ROUNDING
    pairs = good if counted else made_up
    allowed = math.floor((len(pairs.first) + 1) * bound + _ROUNDING)
    highest = _highest(pairs, level, allowed - 1) if allowed else -np.inf
    highest = min(highest, _highest(frames["synthetic"], level, 0), mixture.settled(made_up, level), _below(level))
    return Limit(highest, bound, "conformal" if counted else "tail-fit", n)


def _highest(pairs: Pairs, level: float, wrong: int) -> float:
    """The limit up to which so many frames exit that the full ensemble would not have called good."""
    those = np.sort(pairs.first[pairs.fused >= level])
    return np.inf if len(those) <= wrong else _below(those[wrong])


def outcome(pairs: Pairs, limit: Limit, level: float) -> Outcome:
    """What the limit does to frames."""
    if not len(pairs.first):
        return Outcome(0, 0.0, 0.0)
    exits = pairs.first <= limit.surprise
    return Outcome(len(exits), float(exits.mean()), float((exits & (pairs.fused >= level)).mean()))


def read(path: Path) -> dict[str, Pairs]:
    """The frames of a bundle by their kind, KINDS and MADE_UP; raises BundleError where the file is no such file."""
    try:
        found = load_file(path)
        return {kind: Pairs(found[f"{kind}.first"], found[f"{kind}.fused"]) for kind in (*KINDS, MADE_UP)}
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{path}: not the frames of a cascade ({error}); fuse the ensemble again") from error


def _below(level: float) -> float:
    """The next surprise: of what exits, the first one is itself a good score on the fused scale."""
    return float(np.nextafter(np.float64(level), -np.inf))
