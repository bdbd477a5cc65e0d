"""The loop that takes frames in: as many as there is room for, and what dead consumers left, one suspect at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from engine.errors import AwayError, StreamError
from engine.metrics import Metrics
from engine.pipeline.health import Health
from engine.pipeline.ledger import Ledger
from engine.streams.base import FrameSource
from engine.types import Delivery

_POLL_S = 0.25  # how often a waiting loop looks whether it is to stop
_CLAIM_S = 0.25
_TEND_S = 1.0
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class Reader:
    """Reads into `admit` while the ledger has room.

    A suspect (a frame that an earlier consumer failed on) is taken only when nothing else is in the pipeline, and
    nothing else is read until it has ended: should it kill this process too, no other frame is a suspect for it.
    `open` is whether something may still come before a frame ends; `turned` is called when it has become False.
    """

    def __init__(
        self,
        source: FrameSource,
        ledger: Ledger,
        health: Health,
        metrics: Metrics,
        *,
        admit: Callable[[Sequence[Delivery]], None],
        refused_lines: Callable[[], Collection[str]],
        turned: Callable[[], None],
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._health = health
        self._metrics = metrics
        self._admit = admit
        self._refused_lines = refused_lines
        self._turned = turned
        self._claim_s = 0.0  # monotonic times at which these are due
        self._tend_s = 0.0
        self._stopping = False
        self.open = False

    def stop(self) -> None:
        """Let the loop end soon; safe in a signal handler."""
        self._stopping = True

    def loop(self, *, burst: bool) -> None:
        """Read until `stop`, or with `burst` until there is nothing to read and all that was read has ended.

        Raises StreamError where the server refuses from the start; later it waits until it is let in again.
        """
        failures = 0
        while not self._stopping:
            try:
                found = self._turn(block_ms=0 if burst else int(_POLL_S * 1e3))
            except StreamError as error:
                if not isinstance(error, AwayError) and not self._health.began:
                    raise
                self._health.fails("reading", error)
                self._sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
                continue
            failures = 0
            self._health.works("reading")
            self._health.refused("reading", self._source.refused())
            if burst and not found and self._drained():
                break
        self._close()

    def _turn(self, block_ms: int) -> bool:
        """One round of housekeeping, claiming and reading; whether it brought anything."""
        now_s = time.monotonic()
        found = False
        if now_s >= self._claim_s:
            self._claim_s = now_s + _CLAIM_S
            found = self._claim()
        if now_s >= self._tend_s:
            self._tend_s = now_s + _TEND_S
            self._tend()
        room = self._wait_for_room()
        if not room or self._stopping:
            return True
        self.open = True
        deliveries = self._source.read(room, block_ms, self._refused_lines())
        self._health.begin(f"reading as {self._source.consumer}")
        if deliveries:
            self._admit(deliveries)
        return found or bool(deliveries)

    def _claim(self) -> bool:
        claim = self._source.claim(max(1, self._ledger.room()), alone=False)
        self._admit(claim.deliveries)
        waiting = claim.waiting
        while waiting and self._wait_idle():
            claim = self._source.claim(1, alone=True)
            self._admit(claim.deliveries)
            waiting = claim.waiting
        if claim.waiting or any(delivery.suspect for delivery in claim.deliveries):
            self._wait_idle()
        return bool(claim.deliveries)

    def _tend(self) -> None:
        for line, frames in self._source.tend().items():
            self._metrics.trimmed(line, frames)
        self._metrics.backlog(self._source.backlog())
        self._metrics.held(*self._ledger.load())

    def _wait_for_room(self) -> int:
        room = self._ledger.wait_for_room(0)
        if not room:
            self._close()
            room = self._ledger.wait_for_room(_POLL_S)
        return room

    def _wait_idle(self) -> bool:
        """Wait until nothing is in the pipeline; False where the loop is to stop before."""
        self._close()
        while not self._stopping:
            if self._ledger.wait_idle(_POLL_S):
                return True
        return False

    def _drained(self) -> bool:
        self._close()
        return self._ledger.wait_empty(_POLL_S)

    def _close(self) -> None:
        self.open = False
        self._turned()

    def _sleep(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while not self._stopping and (left_s := deadline_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
