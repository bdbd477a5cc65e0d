"""What the server refuses, line by line, so that a line in trouble does not hold up the others of its process."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from engine.errors import StreamError

_RETRY_S = 1.0


class Refusals:
    """Refused operations by line; a line is refused while any of them is, and read again once a second to see.

    Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[str, dict[str, StreamError]] = {}  # by line and operation
        self._retry_s: dict[str, float] = {}  # monotonic time from which a line may be read again

    def settle(self, line: str, operation: str, error: StreamError | None) -> None:
        """Note how an operation on a line ended: with a refusal, or None."""
        with self._lock:
            known = self._errors.setdefault(line, {})
            if error is None:
                known.pop(operation, None)
            else:
                known[operation] = error
            if not known:
                del self._errors[line]

    def errors(self) -> dict[str, StreamError]:
        """Each refused line with one of its errors."""
        with self._lock:
            return {line: next(iter(known.values())) for line, known in self._errors.items()}

    def due(self, lines: Collection[str]) -> list[str]:
        """Those of the refused lines that may be tried again now; the next time is a second later."""
        now_s = time.monotonic()
        with self._lock:
            found = [line for line in lines if line in self._errors and now_s >= self._retry_s.get(line, 0.0)]
            self._retry_s |= dict.fromkeys(found, now_s + _RETRY_S)
        return found
