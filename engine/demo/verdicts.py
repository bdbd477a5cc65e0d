"""What became of the demo's frames: decisions, and how many of them the cascade's first member settled alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from engine.demo.cells import Cameras
from engine.streams.reader import Published
from engine.types import F64, Result, Verdict


@dataclass(frozen=True, slots=True)
class Streamed:
    """The results of a run by the truth of their cells; `members` are the ensemble's, the one that runs first first."""

    members: tuple[str, ...]
    good: list[Result]
    defective: list[Result]

    @classmethod
    def of(cls, published: Iterable[Published], cameras: Cameras, members: tuple[str, ...]) -> Streamed:
        """Dead letters and expired frames are left out."""
        results = [item.end for item in published if isinstance(item.end, Result) and item.end.status == "ok"]
        good = [result for result in results if not cameras.defective(result.id)]
        return cls(members, good, [result for result in results if cameras.defective(result.id)])

    @property
    def results(self) -> list[Result]:
        """All of them."""
        return [*self.good, *self.defective]


@dataclass(slots=True)
class Verdicts:
    """Counts of results; of an ensemble of `members`, those without all of these in their scores are `alone`."""

    members: int
    decided: dict[Verdict, int] = field(default_factory=lambda: {"good": 0, "review": 0, "reject": 0})
    alone: int = 0

    @property
    def frames(self) -> int:
        """Results counted."""
        return sum(self.decided.values())

    def add(self, result: Result) -> None:
        """Count one; an expired frame has no decision and is not counted."""
        if result.decision is not None:
            self.decided[result.decision] += 1
            self.alone += len(result.scores) < self.members


def count(results: Iterable[Result], members: int) -> Verdicts:
    """Count all of them."""
    found = Verdicts(members)
    for result in results:
        found.add(result)
    return found


def raw_scores(results: Iterable[Result]) -> F64:
    """(n,) of results with a verdict."""
    return np.array([result.raw_score for result in results], np.float64)
