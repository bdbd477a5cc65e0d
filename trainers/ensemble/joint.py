"""Held-out good pictures as several members see them: joined by picture, put on one scale, fused, calibrated.

What makes a fused threshold honest is that nothing it rests on has seen the picture: not the member (see
`trainers.calibration.record`), and not the tail that its score is measured by. So tails are fitted on some of the
pictures and the others are judged by them:

- where the members held the same pictures out (`folds` 1) and half of these are enough for a conformal rank, every
  other block of neighbours fits the tails and the rest sets the threshold, which is then guaranteed as for one model;
- else in folds: each block of neighbours by the tails of the others, the final tails by all; an estimate. Where that
  leaves too few false alarms to count, the level follows from the final tails (`trainers.ensemble.copula`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from engine.cascade import Mixture, Pairs
from engine.contract import Calibration, Estimate, Rule, Tail
from engine.errors import DataError
from engine.fusion import fuse, resized
from engine.types import F32, F64
from trainers.calibration.record import Record
from trainers.calibration.tails import fit_tail
from trainers.calibration.thresholds import PixelScores, calibrate, level_of
from trainers.dataset.good import blocks
from trainers.ensemble import copula

MIN_JOINT = 20  # pictures; fewer say next to nothing about a tail
FOLDS = 10
_PIXELS = 200_000  # that a pixel tail rests on, evenly spread over pictures and positions
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Scales:
    """The tails of each member's pictures and pixels."""

    image: tuple[Tail, ...]
    pixel: tuple[Tail, ...]


@dataclass(frozen=True, slots=True)
class How:
    """The rule and weights by which members are fused, and the (height, width) px of the fused map."""

    rule: Rule
    weights: tuple[float, ...]
    size: tuple[int, int]

    @property
    def mixture(self) -> Mixture:
        """Without the maps."""
        return Mixture(self.weights, self.rule)


@dataclass(frozen=True, slots=True)
class Levels:
    """Finds levels of fused scores as `level_of` does, but tails by made-up pictures (`trainers.ensemble.copula`)."""

    made_up: Pairs

    def __call__(self, scores: F64, target_fpr: float, folds: int) -> tuple[float, Estimate]:
        """See `trainers.calibration.thresholds.level_of`."""
        level, estimate = level_of(scores, target_fpr, folds)
        if estimate.how != "tail-fit":
            return level, estimate
        note = f"{estimate.note}s of the members, and how they go together"
        return copula.level(self.made_up.fused, target_fpr), msgspec.structs.replace(estimate, note=note)


@dataclass(frozen=True, slots=True)
class Joint:
    """n pictures that every one of M members held out: `rows` of each record, `scores` (M, n) raw."""

    records: tuple[Record, ...]
    rows: tuple[Rows, ...]
    scores: F64

    def __len__(self) -> int:
        return int(self.scores.shape[1])

    @property
    def contents(self) -> list[str]:
        """The pictures' hashes."""
        return [self.records[0].contents[row] for row in self.rows[0]]

    def maps(self, member: int, picture: int) -> F32:
        """(1, H, W) of a member's own size."""
        return self.records[member].maps(int(self.rows[member][picture]))

    def pixels(self, member: int, pictures: Rows) -> F64:
        """(m,) raw values of some pictures' maps, evenly spread."""
        maps = [self.maps(member, picture)[0] for picture in pictures]
        stride = max(1, math.isqrt(sum(one.size for one in maps) // _PIXELS))
        return np.concatenate([one[stride // 2 :: stride, stride // 2 :: stride].ravel() for one in maps]).astype(float)

    def scales(self, pictures: Rows) -> Scales:
        """Tails by some of the pictures; raises DataError where a member gives them all the same score."""
        members = range(len(self.records))
        try:
            image = tuple(fit_tail(self.scores[m, pictures]) for m in members)
            return Scales(image, tuple(fit_tail(self.pixels(m, pictures)) for m in members))
        except ValueError as error:
            raise DataError(f"a member cannot be put on a scale with others: {error}; leave it out") from error


@dataclass(frozen=True, slots=True)
class Fused:
    """What joining gave: the scales to serve with, the fused thresholds, and the pictures that these rest on."""

    scales: Scales
    calibration: Calibration
    good: Pairs
    levels: Levels


def join(names: Sequence[str], records: Sequence[Record]) -> Joint:
    """The pictures that all members held out, in the order of the first; raises DataError where they are too few."""
    common = set(records[0].contents).intersection(*(record.contents for record in records[1:]))
    contents = [content for content in records[0].contents if content in common]
    if len(contents) < MIN_JOINT:
        each = ", ".join(f"{name} {len(record.contents)}" for name, record in zip(names, records, strict=True))
        raise DataError(
            f"expected at least {MIN_JOINT} good pictures that every member held out, got {len(contents)} "
            f"(held out: {each}); train the members on the same folder, with more pictures"
        )
    place = [{content: row for row, content in enumerate(record.contents)} for record in records]
    rows = tuple(np.array([where[content] for content in contents], np.intp) for where in place)
    scores = np.array([record.scores[row] for record, row in zip(records, rows, strict=True)])
    return Joint(tuple(records), rows, scores)


def fuse_jointly(joint: Joint, how: How, folds: int, target_fpr: float) -> Fused:
    """Scales, thresholds and the cascade's pairs; `folds` 1 where every member held its pictures out for good."""
    parts = blocks(len(joint), min(FOLDS, len(joint)))
    fitting = np.concatenate(parts[0::2])
    judged = np.concatenate(parts[1::2])
    if folds == 1 and (len(judged) + 1) * target_fpr >= 1:
        scales = joint.scales(fitting)
        trials = [(scales, judged)]
    else:
        folds = len(parts)
        everything = np.arange(len(joint))
        scales = joint.scales(everything)
        trials = [(joint.scales(np.setdiff1d(everything, part)), part) for part in parts]
    pixels, found = PixelScores(), []
    for by, pictures in trials:
        found.append(how.mixture.pairs([tail.of(joint.scores[m, pictures]) for m, tail in enumerate(by.image)]))
        for picture in pictures:
            pixels.add(_map(joint, by, how, picture))
    good = Pairs.joined(found)
    levels = Levels(copula.simulated(joint.scores, how.mixture))
    calibration = calibrate(good.fused, pixels, folds=folds, target_fpr=target_fpr, find=levels)
    return Fused(scales, calibration, good, levels)


def _map(joint: Joint, scales: Scales, how: How, picture: int) -> F32:
    """(1, H, W) the fused map of one picture."""
    maps = [resized(tail.of(joint.maps(m, picture)), how.size) for m, tail in enumerate(scales.pixel)]
    return fuse(maps, how.weights, how.rule)
