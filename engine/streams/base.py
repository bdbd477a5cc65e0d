"""The seams between the pipeline and the stream server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.errors import StreamError
from engine.types import DeadLetter, Delivery, Result

# True where the call ended the frame, False where it was no longer pending, an error where the server refused or was
# away and the frame is still pending.
Ending = bool | StreamError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one delivery ends: exactly one of `result` and `dead`.

    `pictures` are a result's PNG fields where they were encoded beforehand.
    """

    delivery: Delivery
    result: Result | None = None
    dead: DeadLetter | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """What was taken over from consumers that are gone; `waiting` where frames that must run alone are left."""

    deliveries: list[Delivery]
    waiting: bool


class FrameSource(Protocol):
    """Hands out stream entries of one or more lines and keeps this consumer's claim on them alive.

    Every method raises AwayError where the server cannot be reached now, StreamError where it refuses this process.
    What it refuses for single lines only, as their keys are of the wrong type or forbidden, raises nothing and is told
    by `refused`; the other lines go on. Nothing is lost by any of these; the next call tries again.
    """

    @property
    def consumer(self) -> str:
        """This consumer's name, unique to the process."""

    def refused(self) -> Mapping[str, StreamError]:
        """The lines that the server refuses now, and why."""

    def now_ms(self, line: str) -> float:
        """Time of the server that holds a line, ms since the epoch: the clock that made the entry ids."""

    def read(self, max_frames: int, block_ms: int, skip: Collection[str] = ()) -> list[Delivery]:
        """About `max_frames` deliveries of lines that are not in `skip`, waiting up to `block_ms` for the first.

        After a start and after a broken connection, what is pending for this consumer comes first, here as from
        `claim`; the caller drops what it already holds. Raises StreamError where every line is refused.
        """

    def claim(self, max_frames: int, *, alone: bool) -> Claim:
        """Entries that a consumer handed back, lost to trimming, or has left idle for too long.

        An entry that an earlier consumer failed on (a suspect) comes only with `alone`, which says that nothing else
        is being processed here, and then as the only one to be processed.
        """

    def renew(self, held: Sequence[Delivery]) -> list[Delivery]:
        """Reset the idle time of what this consumer still holds; returns those that another has taken over."""

    def release(self, held: Sequence[Delivery]) -> None:
        """Hand back what was not begun, so that another consumer gets it at once and not as a suspect."""

    def backlog(self) -> dict[str, int]:
        """Entries of each line that are still to end; without the lines that are refused."""

    def tend(self) -> dict[str, int]:
        """Remove consumers that are gone, trim where configured; returns how many unread frames each line lost."""

    def close(self) -> None:
        """Leave the group where nothing is pending, and close the connections."""


class OutcomeSink(Protocol):
    """Ends deliveries: publishes and acknowledges in one step."""

    def publish(self, outcomes: Sequence[Outcome]) -> list[Ending]:
        """For each outcome, in order, how it went; raises nothing for a server that refuses or is away."""
