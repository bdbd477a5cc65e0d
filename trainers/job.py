"""One training under way, the same for every method: what was asked for, what it works on, where it shows itself."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from engine.contract import Manifest
from trainers import manifest
from trainers.base import TrainOptions, TrainReport
from trainers.calibration.holdout import Split
from trainers.dataset.good import TrainingSet, check_training, read_dataset
from trainers.learning.checkpoint import Checkpoint
from trainers.progress import Progress

Fact = float | int | str | bool | None


class Settings(Protocol):
    """What can be set in a method."""

    @property
    def side_px(self) -> int:
        """Side of the network's square input."""

    def record(self) -> dict[str, Fact]:
        """Plain values for the manifest."""


S = TypeVar("S", bound=Settings)


def changed(settings: S, given: Mapping[str, object]) -> S:
    """Settings, a dataclass, with the values that were given; None leaves one as it is."""
    return replace(settings, **{key: value for key, value in given.items() if value is not None})  # type: ignore[type-var]


def plain(values: Mapping[str, Any]) -> dict[str, Fact]:
    """Settings' values as a manifest keeps them: lists are joined by commas."""
    return {key: ",".join(map(str, v)) if isinstance(v, tuple) else v for key, v in values.items()}


@dataclass(frozen=True, slots=True)
class Job(Generic[S]):
    """See the module; `started_s` is of `time.perf_counter`."""

    options: TrainOptions
    settings: S
    data: TrainingSet
    pictures: Split
    progress: Progress
    started_s: float

    @property
    def held_out_contents(self) -> list[str]:
        """SHA-256 of the pictures that calibration rests on, in order: all of them where it is by folds."""
        held_out = self.pictures.held_out if len(self.pictures.held_out) else self.pictures.training
        return [self.data.contents[row] for row in held_out.rows]

    def recorded(self) -> dict[str, Fact]:
        """The settings as the manifest has them."""
        return self.settings.record() | {"seed": self.options.seed}

    def checkpoint(self, part: str = "") -> Checkpoint:
        """The checkpoint that only the same training of this part on the same pictures may go on from."""
        parts = [self.settings.record(), self.options.seed, self.data.record.sha256, manifest.versions()]
        fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        out = self.options.out.resolve()
        return Checkpoint.beside(out.with_name(out.name + part), fingerprint)

    def report(self, document: Manifest) -> TrainReport:
        """What training made, now that it is done."""
        calibrations = {name: executable.calibration for name, executable in document.executables.items()}
        seconds = time.perf_counter() - self.started_s
        out, method = self.options.out, document.method
        return TrainReport(out, method, document.version, seconds, calibrations, document.report)


def read_training(options: TrainOptions, progress: Progress) -> TrainingSet:
    """The good pictures of `options.data`, checked; says what is worth knowing of them."""
    data = check_training(read_dataset(options.data))
    for warning in data.warnings:
        progress.say(warning)
    return data
