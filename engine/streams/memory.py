"""The in-memory double of the stream server: one process, no I/O, the same promises."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Sequence

from engine.errors import AwayError, StreamError
from engine.streams.base import Claim, Ending, Outcome
from engine.types import Delivery


class MemoryStreams:
    """Source and sink in one. Tests push deliveries, set `away`, `unreadable_lines` and `refused_lines` (of which
    nothing can be published), and look at what was ended.

    Entry ids count up from `0-1`; a delivery pushed with `deliveries` above 1 is a suspect, as from a dead consumer.
    """

    consumer = "memory"

    def __init__(self) -> None:
        self.ended: list[Outcome] = []
        self.released: list[Delivery] = []
        self.renewed: list[Delivery] = []
        self.away = False
        self.refused_lines: set[str] = set()
        self.unreadable_lines: set[str] = set()
        self._changed = threading.Condition()
        self._fresh: deque[Delivery] = deque()
        self._suspects: deque[Delivery] = deque()
        self._pending: dict[str, Delivery] = {}
        self._count = 0

    def push(self, line: str, meta: bytes | None, data: bytes | None, *, deliveries: int = 1) -> str:
        """Queue an entry (None, None: trimmed); returns its id."""
        with self._changed:
            self._count += 1
            delivery = Delivery(line, f"0-{self._count}", deliveries, meta, data)
            (self._fresh if deliveries == 1 else self._suspects).append(delivery)
            self._changed.notify_all()
            return delivery.entry

    def refused(self) -> dict[str, StreamError]:
        """See `FrameSource.refused`."""
        return {line: StreamError(f"memory: {line} cannot be read") for line in self.unreadable_lines}

    def now_ms(self, line: str) -> float:
        """See `FrameSource.now_ms`; entries were all added at time 0."""
        return 0.0

    def read(self, max_frames: int, block_ms: int, skip: Collection[str] = ()) -> list[Delivery]:
        """See `FrameSource.read`."""
        with self._changed:
            self._check()
            self._changed.wait_for(lambda: self._fresh, block_ms / 1e3)
            skipped = {*skip, *self.unreadable_lines}
            taken = [delivery for delivery in self._fresh if delivery.line not in skipped][:max_frames]
            for delivery in taken:
                self._fresh.remove(delivery)
            self._pending |= {delivery.entry: delivery for delivery in taken}
            return taken

    def claim(self, max_frames: int, *, alone: bool) -> Claim:
        """See `FrameSource.claim`."""
        with self._changed:
            self._check()
            taken = [self._suspects.popleft()] if alone and self._suspects and max_frames else []
            self._pending |= {delivery.entry: delivery for delivery in taken}
            return Claim(taken, waiting=bool(self._suspects))

    def renew(self, held: Sequence[Delivery]) -> list[Delivery]:
        """See `FrameSource.renew`."""
        self._check()
        self.renewed += held
        return [delivery for delivery in held if delivery.entry not in self._pending]

    def release(self, held: Sequence[Delivery]) -> None:
        """See `FrameSource.release`."""
        self._check()
        self.released += held
        for delivery in held:
            self._pending.pop(delivery.entry, None)

    def take_over(self, entry: str) -> None:
        """What another consumer does that claims an entry and ends it."""
        self._pending.pop(entry, None)

    def backlog(self) -> dict[str, int]:
        """See `FrameSource.backlog`."""
        self._check()
        with self._changed:
            waiting = [*self._fresh, *self._suspects, *self._pending.values()]
        return {line: sum(d.line == line for d in waiting) for line in {d.line for d in waiting}}

    def tend(self) -> dict[str, int]:
        """See `FrameSource.tend`."""
        return {}

    def close(self) -> None:
        """See `FrameSource.close`."""

    def publish(self, outcomes: Sequence[Outcome]) -> list[Ending]:
        """See `OutcomeSink.publish`."""
        return [self._end(outcome) for outcome in outcomes]

    def _end(self, outcome: Outcome) -> Ending:
        if self.away:
            return AwayError("memory: away")
        if outcome.delivery.line in self.refused_lines:
            return StreamError(f"memory: {outcome.delivery.line} refuses")
        if self._pending.pop(outcome.delivery.entry, None) is None:
            return False
        self.ended.append(outcome)
        return True

    def _check(self) -> None:
        if self.away:
            time.sleep(0.001)
            raise AwayError("memory: away")
