"""The seam between the command line and a paper: what a trainer is given, what it hands back.

Adding a paper: write `trainers/NAME/` with a class that satisfies `Trainer`, add it to `registry.py`; the registry's
tests, the command line and the protocols then pick it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from engine.contract import Calibration, Precision
from engine.errors import UsageError
from trainers.progress import Progress

DEFAULT_TARGET_FPR = 0.01
DEFAULT_OVERLAP = 0.25
AS_GIVEN = "as given"  # a protocol's data unchanged, see `trainers.dataset.copies`
OF_SOME = frozenset(
    {
        "augmentation",
        "backbone",
        "channels",
        "classifier",
        "download_weights",
        "encoder",
        "network",
        "objective",
        "patch_size",
        "pretext",
        "representation",
        "width",
    }
)

Objective = Literal["1", "2", "both"]
Augmentation = Literal["none", "rotations", "flips", "both"]
Width = Literal["narrow", "full"]
EncoderKind = Literal["scratch", "imagenet", "distilled", "self-supervised"]
PretextKind = Literal["rotation", "contrastive", "distaug", "random", "imagenet"]
NetworkKind = Literal["padding-free", "resnet18"]
ClassifierKind = Literal["gde", "kde", "oc-svm", "oc-svm-linear", "cosine", "rotation-softmax"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `engine train` was asked for; None leaves a value to the method.

    `threads` 0 means all cores; `image_size` is the side in pixels; `target_fpr` the share of good pictures that may be
    rejected. `tile` is the side, in pixels of the pictures, of the squares that the network sees one by one, `overlap`
    the share of it that neighbours have in common; without a tile it sees whole pictures. The options from `backbone`
    (NAME or NAME=FILE) on are of some methods only, see `Trainer.takes`; `representation` is a bundle whose learnt
    features are taken as they are.
    """

    data: Path
    out: Path
    epochs: int | None = None
    image_size: int | None = None
    seed: int = 0
    target_fpr: float = DEFAULT_TARGET_FPR
    threads: int = 0
    tile: int | None = None
    overlap: float | None = None
    backbone: str | None = None
    channels: int | None = None
    download_weights: bool = False
    objective: Objective | None = None
    augmentation: Augmentation | None = None
    width: Width | None = None
    encoder: EncoderKind | None = None
    pretext: PretextKind | None = None
    network: NetworkKind | None = None
    patch_size: int | None = None
    classifier: ClassifierKind | None = None
    representation: Path | None = None

    @property
    def side_px(self) -> int | None:
        """Side of the network's input: a tile is taken as it is where nothing else is asked for."""
        return self.tile if self.image_size is None else self.image_size


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
    """One paper's method; `takes` names the options that it has and not every method."""

    name: str
    takes: frozenset[str]

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """Train, calibrate and write the bundle `options.out`; the same options and pictures give the same bytes.

        Raises UsageError (or a kind of it) for anything a person can put right.
        """

    def variants(self, protocol: str) -> Sequence[Variant]:
        """The rows of an evaluation protocol of the paper; none where the method has no part in it.

        A variant that the paper shows twice is the same trainer both times.
        """


def refuse_others(options: TrainOptions, trainer: Trainer) -> None:
    """Raise UsageError for an option that another method has; a trainer asks this first."""
    for name in OF_SOME - trainer.takes:
        if getattr(options, name) not in (None, False):
            taken = ", ".join(_flag(other) for other in sorted(trainer.takes)) or "none"
            raise UsageError(f"{_flag(name)}: not an option of --method {trainer.name} (of its own it has: {taken})")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Shared:
    """A representation that variants share: the trainer that makes it, and the copy of the data that it learns from.

    `copy` None is the variant's own.
    """

    trainer: Trainer
    copy: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of one of the paper's tables: a trainer with some of its parts changed or switched off.

    `copies` are those of the data that it is trained and judged on, by their names in `trainers.dataset.copies`. With a
    `representation` only what follows it is trained (`TrainOptions.representation`).
    """

    table: str
    label: str
    trainer: Trainer
    copies: tuple[str, ...] = (AS_GIVEN,)
    representation: Shared | None = None

    @property
    def training(self) -> tuple[object, ...]:
        """Equal where variants are trained alike, and so once."""
        shared = self.representation
        return (id(self.trainer),) if shared is None else (id(self.trainer), id(shared.trainer), shared.copy)
