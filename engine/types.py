"""The engine's nouns: what crosses a boundary between two of its parts.

Letters in shape comments, everywhere: N batch, C channels, H W picture, h w feature grid, P = h * w positions,
K training pictures, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Codec = Literal["raw", "jpeg", "png"]
PixelFormat = Literal["RGB8", "BGR8", "Mono8"]
Verdict = Literal["good", "review", "reject"]
Status = Literal["ok", "expired"]
DeadType = Literal["decode", "contract", "too_large", "too_small", "inference", "max_deliveries", "trimmed"]
Tag = str | int | float | bool

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture from a camera as the wire carries it, still encoded.

    `shape` is (height, width, channels) in pixels, required for `raw`; `ts_ns` is the capture time in nanoseconds
    since the epoch; `id` is the producer's, or None for "use the entry id".
    """

    camera: str
    ts_ns: int
    codec: Codec
    data: bytes
    id: str | None = None
    shape: tuple[int, int, int] | None = None
    pixel_format: PixelFormat | None = None
    tags: Mapping[str, Tag] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stream entry handed to this consumer: the raw fields, unread; None where the entry was trimmed."""

    line: str
    entry: str  # "<ms>-<seq>"
    deliveries: int  # 1 on the first handing-over; from 2 on the frame runs alone
    meta: bytes | None
    data: bytes | None

    @property
    def suspect(self) -> bool:
        """Whether an earlier consumer failed on it, so that it must run alone."""
        return self.deliveries > 1

    @property
    def entry_ms(self) -> int:
        """Server time of the entry, ms since the epoch."""
        return int(self.entry.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a detector says of one picture, uncalibrated.

    `raw_map` is (H, W) float32 at the bundle's input size; `raw_score` is its maximum, or the network's own.
    `member_scores` holds raw scores of each member model that ran.
    """

    raw_score: float
    raw_map: F32
    member_scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Region:
    """A connected region of the mask: `bbox` is (x, y, w, h) in frame pixels, `score` its peak, 0..1."""

    bbox: tuple[int, int, int, int]
    area: int
    score: float


@dataclass(frozen=True, slots=True)
class Drift:
    """That a camera no longer looks like the training: in which `signals`, and the share of good frames rejected now.

    The rate is an estimate, see `engine.drift.false_alarms`.
    """

    signals: tuple[str, ...]
    false_alarm_rate: float


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one frame, on the calibrated scale (0.5 = reject threshold).

    `anomaly_map` is (H, W) uint16, round(65535 * pixel score), and `pred_mask` (H, W) uint8 0/255, both of the
    frame's own size; either may be None where it was not asked for. `drift` is None where none is known.
    """

    frame: str
    id: str
    camera: str
    ts_ns: int
    tags: Mapping[str, Tag]
    status: Status
    pred_score: float | None
    pred_label: bool | None
    decision: Verdict | None
    raw_score: float | None
    scores: Mapping[str, float]
    regions: tuple[Region, ...]
    model: str
    timing_ms: Mapping[str, float]
    anomaly_map: npt.NDArray[np.uint16] | None = None
    pred_mask: U8 | None = None
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a frame could not be processed; `type` is a `DeadType`, or one of a later version."""

    type: str
    message: str
    model: str
    deliveries: int
    consumer: str
    ts_ns: int
