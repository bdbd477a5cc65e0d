"""The seam between the command line and a paper: what a trainer is given, what it hands back.

Adding a paper: write `trainers/NAME/` with a class that satisfies `Trainer`, add it to `registry.py`; the registry's
tests, the command line and the protocols then pick it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.contract import Calibration, Precision
from trainers.progress import Progress

DEFAULT_TARGET_FPR = 0.01


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `engine train` was asked for; None leaves a value to the method.

    `backbone` is NAME or NAME=FILE; `threads` 0 means all cores; `image_size` is the side in pixels; `target_fpr` the
    share of good pictures that may be rejected.
    """

    data: Path
    out: Path
    epochs: int | None = None
    backbone: str | None = None
    channels: int | None = None
    image_size: int | None = None
    seed: int = 0
    target_fpr: float = DEFAULT_TARGET_FPR
    threads: int = 0
    download_weights: bool = False


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What training made: the document of `engine train --json`. `measured` is the manifest's `report`."""

    bundle: Path
    method: str
    version: str
    train_s: float
    calibration: Mapping[Precision, Calibration]
    measured: Mapping[str, float | int | str | None]

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names that scripts rely on."""
        return {
            "bundle": str(self.bundle),
            "method": self.method,
            "version": self.version,
            "train_s": round(self.train_s, 3),
            "calibration": {name: msgspec.to_builtins(value) for name, value in self.calibration.items()},
            "report": dict(self.measured),
        }


class Trainer(Protocol):
    """One paper's method."""

    name: str

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """Train, calibrate and write the bundle `options.out`; the same options and pictures give the same bytes.

        Raises UsageError (or a kind of it) for anything a person can put right.
        """

    def variants(self, protocol: str) -> Sequence[Variant]:
        """The rows of an evaluation protocol of the paper; none where the method has no part in it.

        A variant that the paper shows twice is the same trainer both times.
        """


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of one of the paper's tables: a trainer with some of its parts changed or switched off."""

    table: str
    label: str
    trainer: Trainer
