"""The thread that keeps this process's claim on what it holds, however long a batch or an outage lasts."""

from __future__ import annotations

import logging
import threading
import time

from engine.errors import StreamError
from engine.pipeline.ledger import Ledger
from engine.streams.base import FrameSource

log = logging.getLogger(__name__)


class Keeper:
    """Looks every sixth of `claim_idle_ms`, and renews what has been held that long.

    So a claim is never older than a third of it, and frames that end soon, which is nearly all, cost nothing.
    """

    def __init__(self, source: FrameSource, ledger: Ledger, claim_idle_ms: int) -> None:
        self._source = source
        self._ledger = ledger
        self._period_s = claim_idle_ms / 6e3
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped.set()

    def loop(self) -> None:
        """Renew until `stop`."""
        while not self._stopped.wait(self._period_s):
            self.renew(time.monotonic())

    def renew(self, now_s: float) -> None:
        """Renew what is due at a monotonic time, and mark what another consumer has taken over."""
        due = [job for job in self._ledger.held() if now_s - job.held_since_s >= self._period_s]
        if not due:
            return
        try:
            taken = {(d.line, d.entry) for d in self._source.renew([job.delivery for job in due])}
        except StreamError as error:
            log.debug("claims not renewed, trying again in %.2f s: %s", self._period_s, error)
            return
        for job in due:
            job.held_since_s = now_s
            job.lost = job.key in taken
