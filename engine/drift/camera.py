"""One camera's last frames against the reference. Pure: no clock, no log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.config import Drift as Settings
from engine.drift.distance import critical, distance
from engine.drift.false_alarms import false_alarm_rate
from engine.drift.reference import SCORE, SIGNALS, Reference
from engine.types import F64, Drift

TOLERATED = 0.02  # share of frames that may lie anywhere without counting as drift: real defects
_LOOKS = 8  # per window
_END_CHANCE = 0.01  # a drift is over when the distance is one that chance reaches as often


@dataclass(frozen=True, slots=True)
class Levels:
    """The distances from which a signal begins to drift, and below which it no longer does."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Rule:
    """What cameras of a line are judged by; `threshold` is the raw score from which a frame is rejected."""

    reference: Reference
    threshold: float
    window: int
    levels: Mapping[str, Levels]

    @property
    def every(self) -> int:
        """Frames from one look to the next."""
        return max(1, self.window // _LOOKS)


def rule_of(reference: Reference, threshold: float, settings: Settings) -> Rule:
    """The rule by which good frames, exchangeable with the training's, begin a drift at most as often as configured.

    Each look tests each signal at one level; the expected number of looks that find anything is at most the sum
    of their levels, however much looks and signals depend on each other.
    """
    looks = 1e6 / max(1, settings.window // _LOOKS)
    chance = settings.false_signals_per_million / (looks * len(SIGNALS))
    levels = {}
    for name in SIGNALS:
        n = len(reference.signals[name])
        begin = critical(n, settings.window, chance) + TOLERATED
        levels[name] = Levels(begin, min(begin, critical(n, settings.window, _END_CHANCE) + TOLERATED))
    return Rule(reference, threshold, settings.window, levels)


@dataclass(frozen=True, slots=True)
class Look:
    """What a full window shows: signed distances, medians and who drifts, by signal; the rate of false alarms now."""

    distances: Mapping[str, float]
    medians: Mapping[str, float]
    drifting: tuple[str, ...]
    false_alarm_rate: float

    @property
    def drift(self) -> Drift | None:
        """What results carry of it."""
        return Drift(self.drifting, self.false_alarm_rate) if self.drifting else None


class Camera:
    """A sliding window of frames; `last` is the last look at it, None until it was full."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.frames = 0
        self.last: Look | None = None
        self._window = np.zeros((rule.window, len(SIGNALS)))

    def add(self, values: F64) -> bool:
        """Take in a frame's values (5,) in the order of SIGNALS; whether it was time for a look."""
        self._window[self.frames % self.rule.window] = values
        self.frames += 1
        if self.frames < self.rule.window or self.frames % self.rule.every:
            return False
        self.last = self._look()
        return True

    def _look(self) -> Look:
        rule, references = self.rule, self.rule.reference.signals
        before = self.last.drifting if self.last is not None else ()
        columns = dict(zip(SIGNALS, np.sort(self._window, axis=0).T, strict=True))
        found = {name: distance(references[name], column) for name, column in columns.items()}
        return Look(
            distances=found,
            medians={name: float(column[rule.window // 2]) for name, column in columns.items()},
            drifting=tuple(name for name in SIGNALS if self._drifts(name, found[name], name in before)),
            false_alarm_rate=false_alarm_rate(references[SCORE], columns[SCORE], rule.threshold),
        )

    def _drifts(self, name: str, found: float, before: bool) -> bool:
        levels = self.rule.levels[name]
        return abs(found) >= (levels.end if before else levels.begin)
