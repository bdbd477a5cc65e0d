"""An ensemble beside what it is made of: each member alone, all of them fused, and the cascade, on the same pictures.

Every member runs once on a picture, whatever would have exited. A member alone is judged by its own threshold; what is
known of it is its score of the whole picture, so it has no pixel figures, and a region of interest does not narrow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.bundle import Bundle
from engine.cascade import DEFECT_SHARE, Limit
from engine.contract import Calibration, Precision
from engine.decide import calibrated_score
from engine.serving.base import RawBatch
from engine.serving.ensemble import Cascade
from engine.types import U8
from trainers.dataset.good import Dataset
from trainers.evaluation.bootstrap import share_interval
from trainers.evaluation.evaluate import (
    Evaluation,
    Json,
    Judge,
    Judged,
    Tally,
    batches,
    bootstrap_of,
    judged_items,
    seen,
)
from trainers.evaluation.metrics import Mask
from trainers.progress import Progress


@dataclass(frozen=True, slots=True)
class Juror:
    """A member of an ensemble: its own thresholds, and what a picture took it where the ensemble was made."""

    calibration: Calibration
    cost_ms: float


@dataclass(frozen=True, slots=True)
class Jury:
    """An ensemble: the `judge` is all members fused, `members` are in the order in which they run, the cheapest first.

    `rest_ms` is what those after the first add to a picture. `cascade` is None where it is off or lets nothing exit.
    """

    judge: Judge
    members: Mapping[str, Juror]
    rest_ms: float
    cascade: Cascade | None

    @classmethod
    def of(cls, judge: Judge, bundle: Bundle, precision: Precision, cascade: Cascade | None) -> Jury:
        """Of the members of an ensemble's bundle, which the `judge` fuses."""
        own, ensemble = bundle.calibrations(precision), bundle.ensemble(precision)
        members = {member.name: Juror(own[member.name], member.cost_ms) for member in ensemble.members}
        return cls(judge, members, ensemble.others_ms, cascade)

    def look(self, sheets: U8) -> tuple[RawBatch, RawBatch, Mask]:
        """N sheets -> what the first member says on the ensemble's scale, what all say, and which (N,) exit."""
        if self.cascade is None:
            raw = self.judge.predict(sheets)
            return raw, raw, np.zeros(len(sheets), bool)
        screening = self.cascade.screen(sheets)
        return screening.raw, self.cascade.complete(sheets, screening.raw), screening.exits


@dataclass(frozen=True, slots=True)
class Exits:
    """Of n pictures: how many the first member settles alone, and how many of these the ensemble would not pass."""

    n: int
    exits: int
    disagreements: int

    def document(self) -> dict[str, Json]:
        """As shares, for JSON; None without pictures."""
        interval = share_interval(self.disagreements, self.n)
        return {
            "n": self.n,
            "exits": self.exits / self.n if self.n else None,
            "disagreement": self.disagreements / self.n if self.n else None,
            "disagreement_interval": None if interval is None else list(interval),
        }


@dataclass(frozen=True, slots=True)
class Cascaded:
    """The cascade's evaluation, its limit, and what it did to good and to defective pictures."""

    evaluation: Evaluation
    limit: Limit
    good: Exits
    defective: Exits

    @property
    def escalated(self) -> float:
        """The share of frames that all members see, where one in a hundred is defective as those judged are."""
        kinds = [
            (each, share) for each, share in ((self.good, 1 - DEFECT_SHARE), (self.defective, DEFECT_SHARE)) if each.n
        ]
        return sum(share * (1 - each.exits / each.n) for each, share in kinds) / sum(share for _, share in kinds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each of them found on the same pictures; costs are of one picture where the ensemble was made.

    `costs_ms` are of each member by itself, `rest_ms` is what those after the first add to it.
    `narrowed` says that a region of interest was set, which `members` alone do not heed.
    """

    members: Mapping[str, Evaluation]
    fused: Evaluation
    cascade: Cascaded | None
    costs_ms: Mapping[str, float]
    rest_ms: float
    narrowed: bool

    @property
    def fused_ms(self) -> float:
        """Of all members, with what they have in common computed once."""
        return self.first_ms + self.rest_ms

    @property
    def first_ms(self) -> float:
        """Of the first member."""
        return next(iter(self.costs_ms.values()))

    @property
    def cascade_ms(self) -> float | None:
        """Of the first member on every frame and of the others on those that escalate."""
        if self.cascade is None:
            return None
        return self.first_ms + self.cascade.escalated * self.rest_ms

    def document(self) -> dict[str, Json]:
        """The JSON of `engine eval --json` of an ensemble."""
        cascade: Json = None
        if self.cascade is not None:
            limit = self.cascade.limit
            cascade = self.cascade.evaluation.figures() | {
                "cost_ms": self.cascade_ms,
                "bound": limit.bound,
                "how": limit.how,
                "frames": limit.n,
                "good": self.cascade.good.document(),
                "defective": self.cascade.defective.document(),
            }
        ensemble: dict[str, Json] = {
            "members": {
                name: found.figures() | {"cost_ms": self.costs_ms[name]} for name, found in self.members.items()
            },
            "fused": self.fused.figures() | {"cost_ms": self.fused_ms},
            "cascade": cascade,
        }
        return self.fused.document() | {"ensemble": ensemble}


def compare(jury: Jury, dataset: Dataset, progress: Progress) -> Comparison:
    """Judge every test picture of a dataset as `evaluate`, by the ensemble, by each member and by the cascade."""
    items, judge = judged_items(dataset), jury.judge
    bootstrap = bootstrap_of(items)

    def tally(calibration: Calibration) -> Tally:
        return Tally(items, bootstrap, calibration.image_estimate.target_fpr)

    alone = {name: tally(juror.calibration) for name, juror in jury.members.items()}
    fused, cascaded, exits = tally(judge.calibration), tally(judge.calibration), []
    narrowed = False
    with progress.task("evaluate", len(items)) as task:
        for some, images in batches(items):
            first, raw, out = jury.look(np.stack([judge.sheet.fit(image) for image in images]))
            for i, (item, image) in enumerate(zip(some, images, strict=True)):
                sight = seen(judge, item, image, raw, i)
                fused.add(sight)
                if jury.cascade is not None:
                    cascaded.add(seen(judge, item, image, first, i) if out[i] else sight)
                for name, each in alone.items():
                    each.note(_alone(sight.judged, name, jury.members[name]))
                exits.append(bool(out[i]))
                narrowed |= judge.view(sight.values.shape) is not None
                task.advance()
    whole = fused.evaluation()
    return Comparison(
        members={name: each.evaluation() for name, each in alone.items()},
        fused=whole,
        cascade=None if jury.cascade is None else _cascaded(jury.cascade, cascaded.evaluation(), whole, exits, judge),
        costs_ms={name: juror.cost_ms for name, juror in jury.members.items()},
        rest_ms=jury.rest_ms,
        narrowed=narrowed,
    )


def _alone(judged: Judged, name: str, juror: Juror) -> Judged:
    score = judged.members[name]
    return replace(judged, raw_score=score, pred_score=calibrated_score(score, juror.calibration))


def _cascaded(cascade: Cascade, found: Evaluation, fused: Evaluation, exits: list[bool], judge: Judge) -> Cascaded:
    level = judge.calibration.not_good_from

    def of(defective: bool) -> Exits:
        those = [(p, e) for p, e in zip(fused.pictures, exits, strict=True) if (p.defect is not None) == defective]
        wrong = sum(e and p.raw_score >= level for p, e in those)
        return Exits(len(those), sum(e for _, e in those), wrong)

    return Cascaded(found, cascade.limit, of(False), of(True))
