"""A frame on its way through the pipeline, and how its way ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.contract import Calibration
from engine.decide import Decision, member_scores
from engine.drift import Monitor
from engine.errors import FrameError
from engine.interest import Interest, View
from engine.serving.base import Predictor, Screen
from engine.sheet import Sheet
from engine.streams.base import Outcome
from engine.types import F32, F64, U8, DeadLetter, Delivery, Drift, Frame, Result

_MAX_MESSAGE_CHARS = 500
_MAP_BYTES = 4  # float32
_PIXEL_BYTES = 3


@dataclass(frozen=True, slots=True)
class Watch:
    """A line and the model that watches it.

    `model` is NAME@VERSION, `sheet` what it looks at; `members` holds the calibration of each member of an ensemble.
    With a `cascade` the predictor's cheapest member sees every frame and the others only some. Lines that share a
    predictor, or a cascade, share its batches. `interest` says which part of a camera's pictures counts; `drift`
    compares what comes with the training, where that is known.
    """

    line: str
    model: str
    method: str
    predictor: Predictor
    calibration: Calibration
    sheet: Sheet
    members: Mapping[str, Calibration] = field(default_factory=dict)
    cascade: Screen | None = None
    interest: Interest | None = None
    drift: Monitor | None = None


@dataclass(slots=True, eq=False)
class Job:
    """One delivery and what each stage has made of it so far. Owned by one stage at a time.

    `image` is the (height, width, 3) sheet for the model, `size` the frame's own (height, width) in px, `raw_map`
    (height, width) at input size; each is dropped when it has been used. `view` is the part of the frame that counts,
    None all of it. `appearance` (4,) is of `engine.appearance`, where drift is watched. `screened` says that the
    cheapest member of a cascade has seen it, and the others are to, which go on from `common`, tensors by name.
    `failure` is a dead letter's type and message. `held_since_s` is the monotonic time of its last renewal.
    """

    delivery: Delivery
    watch: Watch
    held_since_s: float
    frame: Frame | None = None
    image: U8 | None = None
    size: tuple[int, int] = (0, 0)
    view: View | None = None
    appearance: F64 | None = None
    expired: bool = False
    screened: bool = False
    raw_score: float = 0.0
    raw_map: F32 | None = None
    members: Mapping[str, float] = field(default_factory=dict)
    common: Mapping[str, F32] = field(default_factory=dict)
    decision: Decision | None = None
    drift: Drift | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    timing_ms: dict[str, float] = field(default_factory=dict)
    again: Delivery | None = None  # the same entry, delivered once more while this job held it
    lost: bool = False  # another consumer has taken it over
    key: tuple[str, str] = field(init=False)  # line and entry

    def __post_init__(self) -> None:
        self.key = (self.delivery.line, self.delivery.entry)

    @property
    def charge_bytes(self) -> int:
        """What it holds in memory between the stages: the frame, and the model's input or the result's pictures, and
        between the steps of a cascade what the second goes on from."""
        pixels = self.watch.sheet.height * self.watch.sheet.width
        pictures = sum(map(len, self.pictures.values()))
        common = sum(array.nbytes for array in self.common.values())
        return payload_bytes(self.delivery) + max(pixels * (_MAP_BYTES + _PIXEL_BYTES), pictures) + common

    def fail(self, error: FrameError) -> None:
        """Let it end as the dead letter of an error."""
        self.failure = (error.type, str(error))

    def drop_payload(self) -> None:
        """Forget the picture's bytes once a result stands, which does not carry them."""
        if self.failure is None and self.frame is not None:
            self.delivery = replace(self.delivery, data=None)
            self.frame = replace(self.frame, data=b"")

    def label(self) -> str:
        """How it ends, for metrics: a verdict, `expired`, or a dead letter's type."""
        if self.failure is not None:
            return self.failure[0]
        return "expired" if self.decision is None else self.decision.decision

    def outcome(self, consumer: str) -> Outcome:
        """Its outcome as of now."""
        now_ns = time.time_ns()
        if self.failure is not None:
            return Outcome(self.delivery, dead=self._dead_letter(consumer, now_ns))
        return Outcome(self.delivery, result=self._result(now_ns), pictures=self.pictures)

    def _result(self, now_ns: int) -> Result:
        frame, decision = self.frame, self.decision
        assert frame is not None
        self.timing_ms["total"] = max(0.0, (now_ns - frame.ts_ns) / 1e6)
        return Result(
            frame=self.delivery.entry,
            id=self.delivery.entry if frame.id is None else frame.id,
            camera=frame.camera,
            ts_ns=frame.ts_ns,
            tags=frame.tags,
            status="expired" if decision is None else "ok",
            pred_score=None if decision is None else decision.pred_score,
            pred_label=None if decision is None else decision.pred_label,
            decision=None if decision is None else decision.decision,
            raw_score=None if decision is None else decision.raw_score,
            scores={} if decision is None else self._scores(decision),
            regions=() if decision is None else decision.regions,
            model=self.watch.model,
            timing_ms=self.timing_ms,
            drift=self.drift,
        )

    def _scores(self, decision: Decision) -> dict[str, float]:
        if not self.members:
            return {self.watch.method: decision.pred_score}
        return member_scores(self.members, self.watch.members)

    def _dead_letter(self, consumer: str, now_ns: int) -> DeadLetter:
        assert self.failure is not None
        kind, message = self.failure
        return DeadLetter(
            type=kind,
            message=" ".join(message.split())[:_MAX_MESSAGE_CHARS],
            model=self.watch.model,
            deliveries=self.delivery.deliveries - (kind == "max_deliveries"),  # this last one was not a try
            consumer=consumer,
            ts_ns=now_ns,
        )


def payload_bytes(delivery: Delivery) -> int:
    """The bytes that a delivery carries."""
    return len(delivery.meta or b"") + len(delivery.data or b"")
