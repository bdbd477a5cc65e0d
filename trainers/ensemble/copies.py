"""Held-out pictures with a synthetic defect each, as members judge them that have not seen the picture.

A member that holds pictures out judges copies of them as it is served. One that was calibrated by folds has learnt from
every picture by now, and finds a copy of one that it knows less surprising than a new one: its copies are judged by the
models of its calibration again, each picture's by the one that was fitted without it. So a copy's score goes with that
of its original in the member's record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.bundle import Bundle
from engine.contract import Precision
from engine.serving.base import RawBatch
from engine.tiling import Layout
from engine.types import F64, U8
from trainers.calibration.holdout import read_split
from trainers.dataset.good import TrainingSet
from trainers.dataset.synthetic import KINDS, every_kind
from trainers.network import gaussian
from trainers.network.features import Extractor
from trainers.network.gaussian import Detector, Folds, Recipe
from trainers.progress import Progress

Predict = Callable[[U8], RawBatch]


@dataclass(frozen=True, slots=True)
class Served:
    """A bundle in one precision, and what runs it."""

    bundle: Bundle
    precision: Precision
    predict: Predict


def judged(members: Sequence[Served], data: TrainingSet, rows: Sequence[int], threads: int, progress: Progress) -> F64:
    """(M, k, d) raw scores of `rows`, ascending, of the training pictures, with every kind of defect."""
    judges = [judge_of(member, data, threads, progress) for member in members]
    scores = np.zeros((len(members), len(rows), len(KINDS)))
    with progress.task(f"{members[0].precision}: synthetic defects", len(rows)) as task:
        for i, row in enumerate(rows):
            made = every_kind(data.pictures[row], row)
            for m, (member, judge) in enumerate(zip(members, judges, strict=True)):
                scores[m, i] = judge(row, np.stack([member.bundle.sheet.fit(copy) for copy in made]))
            task.advance()
    return scores


def evenly(rows: npt.NDArray[np.intp], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    return [int(row) for row in rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.intp)]]


Judge = Callable[[int, U8], F64]  # of copies (d, H, W, 3) of one training picture


def judge_of(member: Served, data: TrainingSet, threads: int, progress: Progress) -> Judge:
    """What judges copies of a training picture, given its number, as if the member had not learnt from it.

    Numbers must ascend. Raises BundleError where a bundle that was calibrated by folds cannot be fitted again.
    """
    executable = member.bundle.executable(member.precision)
    estimate = executable.calibration.image_estimate
    if estimate.folds == 1:
        return lambda row, copies: member.predict(copies).scores
    recipe = Recipe.of(member.bundle, estimate.target_fpr)
    extractor = Extractor(member.bundle.file(executable.network), threads)
    manifest = member.bundle.manifest
    seed = manifest.settings["seed"]
    assert isinstance(seed, int)
    pictures = read_split(data, Layout.of(manifest) or manifest.input.height, gaussian.split, seed, progress)
    return _ByFolds(gaussian.folds_of(extractor, pictures, recipe, progress))


class _ByFolds:
    """Refits a fold's Gaussian when a picture of it comes: pictures come in order."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds
        self._parts = folds.parts
        self._part = -1
        self._detector: Detector | None = None

    def __call__(self, row: int, copies: U8) -> F64:
        part = next(i for i, rows in enumerate(self._parts) if row in rows)
        if self._detector is None or part != self._part:
            self._part, self._detector = part, self._folds.without(self._parts[part])
        return self._detector.score(copies)[0]
