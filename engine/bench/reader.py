"""Reads a line's results while a benchmark runs, as any other reader would."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from engine.bench.load import Target
from engine.errors import EngineError
from engine.streams.reader import LineReader, Published
from engine.types import Result

_BLOCK_MS = 100
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """One result: scheduled capture, publication by the server's clock, and when the reader held it, all in ns."""

    ts_ns: int
    published_ns: int
    received_ns: int
    anomalous: bool
    timing_ms: Mapping[str, float]


class DeadLetterError(EngineError):
    """A frame of the benchmark ended as a dead letter."""


class ResultReader:
    """Follows a new line's results, and how many frames wait; a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._seen: list[Seen] = []
        self._max_backlog = 0
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> ResultReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def begin(self) -> None:
        """Forget what was seen so far."""
        with self._lock:
            self._seen, self._max_backlog = [], 0

    def wait_for(self, count: int, timeout_s: float) -> list[Seen]:
        """What was seen since `begin`, as soon as it is `count` results or the time is up.

        Raises DeadLetterError where a frame did not end as a result, StreamError where the server failed.
        """
        deadline = time.monotonic() + timeout_s
        while len(self._seen) < count and self._failure is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if self._failure is not None:
            raise self._failure
        with self._lock:
            return list(self._seen)

    @property
    def max_backlog(self) -> int:
        """The most unread frames since `begin`."""
        return self._max_backlog

    def _run(self) -> None:
        try:
            with closing(self._target.link()) as link, link.translated():
                link.open()
                client = link.client(self._target.keys.results)
                reader = LineReader(client, self._target.keys)
                while not self._stopped.is_set():
                    self._note(reader.read(_BLOCK_MS), client.xlen(self._target.keys.frames))
        except Exception as error:  # a thread's errors belong to whoever waits for it
            self._failure = error

    def _note(self, published: list[Published], backlog: int) -> None:
        seen = [_seen(each) for each in published]
        with self._lock:
            self._seen += seen
            self._max_backlog = max(self._max_backlog, backlog)


def _seen(published: Published) -> Seen:
    end = published.end
    if not isinstance(end, Result):
        raise DeadLetterError(f"frame {end.frame}: {end.letter.type}: {end.letter.message}")
    published_ns = published.published_ms * 1_000_000
    return Seen(end.ts_ns, published_ns, time.time_ns(), bool(end.pred_label), end.timing_ms)
