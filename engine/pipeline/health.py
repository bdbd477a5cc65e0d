"""Whether frames are being read and results accepted; every change is logged once."""

from __future__ import annotations

import logging
import threading
import time

from engine.errors import AwayError, StreamError

log = logging.getLogger(__name__)


class Health:
    """The troubles of the reading and of the publishing side; ready while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._troubles: dict[str, StreamError] = {}
        self._began = False
        self._since_s = 0.0

    @property
    def ready(self) -> bool:
        """Reading has begun, and neither side is in trouble."""
        return self._began and not self._troubles

    def trouble_s(self) -> float:
        """How long there has been trouble."""
        with self._lock:
            return time.monotonic() - self._since_s if self._troubles else 0.0

    def begin(self, message: str) -> None:
        """The first read has succeeded."""
        if not self._began:
            self._began = True
            log.info("ready: %s", message)

    @property
    def began(self) -> bool:
        """Whether a read has ever succeeded."""
        return self._began

    def fails(self, side: str, error: StreamError) -> None:
        """A side cannot work now."""
        with self._lock:
            known = {type(trouble) for trouble in self._troubles.values()}
            if not self._troubles:
                self._since_s = time.monotonic()
            self._troubles[side] = error
        if type(error) not in known:
            what = (
                "waiting for the server" if isinstance(error, AwayError) else "the server refuses, frames stay pending"
            )
            log.error("%s (%s): %s", what, side, error)

    def works(self, side: str) -> None:
        """A side works."""
        if side not in self._troubles:
            return
        with self._lock:
            self._troubles.pop(side, None)
            healed = not self._troubles
        if healed:
            log.warning("working again after %.1f s", time.monotonic() - self._since_s)
