"""The seams between the pipeline and the stream server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.types import DeadLetter, Delivery, Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one delivery ends: exactly one of `result` and `dead`."""

    delivery: Delivery
    result: Result | None = None
    dead: DeadLetter | None = None


class FrameSource(Protocol):
    """Hands out stream entries of one or more lines and keeps this consumer's claim on them alive."""

    def read(self, max_frames: int, block_ms: int) -> list[Delivery]:
        """Up to `max_frames` deliveries, waiting up to `block_ms` for the first.

        Own pending entries come first after a start, then entries of dead consumers, then new ones. Raises StreamError
        when the server refuses; waits and reconnects where it is away.
        """

    def renew(self, held: Sequence[Delivery]) -> list[Delivery]:
        """Reset the idle time of what this consumer still holds; returns those that another has taken over."""

    def release(self, held: Sequence[Delivery]) -> None:
        """Hand back what was not begun, so that another consumer gets it at once and not as a suspect."""

    def backlog(self) -> dict[str, int]:
        """Entries in each line's frames stream (XLEN)."""

    def close(self) -> None:
        """Leave the group if nothing is pending, and close the connection."""


class OutcomeSink(Protocol):
    """Ends deliveries: publishes and acknowledges in one step."""

    def publish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """For each outcome, in order: True where this call ended the frame, False where it was no longer pending.

        Raises StreamError when the server refused a publish; that frame is still pending.
        """
