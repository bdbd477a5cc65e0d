"""The seam between the pipeline and whatever runs the model, with an in-memory double beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.types import F32, F64, U8


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Uncalibrated output for a batch of N pictures.

    `scores` (N,) float64, `maps` (N, H, W) float32 at the bundle's input size, `members` raw scores (N,) float64 of
    each member model that ran. `common` are tensors (N, ...) float32 from which other members go on.
    """

    scores: F64
    maps: F32
    members: Mapping[str, F64] = field(default_factory=dict)
    common: Mapping[str, F32] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[RawBatch]) -> RawBatch:
        """The pictures of several batches, at least one, by the same members as one."""
        return cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.maps for part in parts]),
            {name: np.concatenate([part.members[name] for part in parts]) for name in parts[0].members},
            {name: np.concatenate([part.common[name] for part in parts]) for name in parts[0].common},
        )

    def at(self, rows: slice | npt.NDArray[np.bool_]) -> RawBatch:
        """Some of the pictures."""
        return RawBatch(
            self.scores[rows],
            self.maps[rows],
            {name: scores[rows] for name, scores in self.members.items()},
            {name: tensor[rows] for name, tensor in self.common.items()},
        )


class Predictor(Protocol):
    """Runs one bundle. `predict` may be called from several threads at once."""

    @property
    def backend(self) -> str:
        """Its name, for logs and `engine doctor`: `onnx`, `openvino`, ..."""

    @property
    def precision(self) -> str:
        """Which executable of the bundle it runs: `fp32`, `int8`, ..."""

    def predict(self, images: U8) -> RawBatch:
        """(N, H, W, 3) uint8 RGB at the bundle's input size, or its sheets (`engine.sheet`) -> raw scores and maps.

        Raises BackendError when the runtime fails.
        """

    def close(self) -> None:
        """Release the model; the predictor is not used afterwards."""


@dataclass(frozen=True, slots=True)
class Screening:
    """What the cheapest member says of N pictures: `raw` on the ensemble's scale, and which of them `exits` (N,) with
    that; the others are to be completed."""

    raw: RawBatch
    exits: npt.NDArray[np.bool_]


class Screen(Protocol):
    """A cascade: runs an ensemble in two steps. Both may be called from several threads at once."""

    def screen(self, images: U8) -> Screening:
        """The cheapest member on (N, H, W, 3) uint8 sheets. Raises BackendError when the runtime fails."""

    def complete(self, images: U8, first: RawBatch) -> RawBatch:
        """All members' output for pictures whose `first` output, with what others go on from, is known. Raises
        BackendError likewise."""


class ConstantPredictor:
    """The double: brightness is the anomaly. Deterministic, so tests can tell frames apart.

    raw_map = mean over RGB / 255; raw_score = its maximum.
    """

    backend = "constant"
    precision = "fp32"

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`."""
        maps = images.mean(axis=3, dtype=np.float32) / np.float32(255)  # (N, H, W)
        return RawBatch(scores=maps.max(axis=(1, 2)).astype(np.float64), maps=maps)

    def close(self) -> None:
        """Nothing to release."""
