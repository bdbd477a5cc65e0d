"""Whether frames are being read, judged and published; every change is logged once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from engine.errors import AwayError, BackendAwayError, EngineError, StreamError

log = logging.getLogger(__name__)


class Health:
    """The troubles of reading, publishing (of their single lines too) and inference; ready while there are none.

    That the server is away is one trouble however many sides notice it; what it refuses is told line by line.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._troubles: dict[str, EngineError] = {}
        self._since_s: dict[str, float] = {}
        self._began = False

    @property
    def ready(self) -> bool:
        """Reading has begun, and nothing is in trouble."""
        return self._began and not self._troubles

    def trouble_s(self) -> float:
        """How long there has been trouble."""
        with self._lock:
            return time.monotonic() - min(self._since_s.values()) if self._since_s else 0.0

    def begin(self, message: str) -> None:
        """The first read has succeeded."""
        if not self._began:
            self._began = True
            log.info("ready: %s", message)

    @property
    def began(self) -> bool:
        """Whether a read has ever succeeded."""
        return self._began

    def fails(self, side: str, error: EngineError) -> None:
        """A side cannot work now."""
        away = isinstance(error, AwayError)
        with self._lock:
            known = (away and self._away()) or type(self._troubles.get(side)) is type(error)
            self._troubles[side] = error
            self._since_s.setdefault(side, time.monotonic())
        if not known:
            waiting = away or isinstance(error, BackendAwayError)
            what = "waiting for the server" if waiting else "the server refuses, frames stay pending"
            log.error("%s (%s): %s", what, side, error)

    def works(self, side: str) -> None:
        """A side works."""
        if side not in self._troubles:
            return
        with self._lock:
            was_away = isinstance(self._troubles.pop(side), AwayError)
            lasted_s = time.monotonic() - self._since_s.pop(side)
            healed = not (was_away and self._away())
        if healed:
            log.warning("working again (%s) after %.1f s", side, lasted_s)

    def refused(self, side: str, lines: Mapping[str, StreamError]) -> None:
        """The lines that a side is refused now; all its others work."""
        now = {f"{side} {line}": error for line, error in lines.items()}
        for trouble in [known for known in self._troubles if known.startswith(f"{side} ") and known not in now]:
            self.works(trouble)
        for trouble, error in now.items():
            self.fails(trouble, error)

    def _away(self) -> bool:
        return any(isinstance(error, AwayError) for error in self._troubles.values())
