"""Reads a line's results while a benchmark runs, as any other reader would."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import redis

from engine.bench.load import Target
from engine.codec import META
from engine.streams.redis import connect

_BLOCK_MS = 100
_COUNT = 500
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """One result: when it was published (server time) and when the reader held it, ns since the epoch."""

    ts_ns: int
    published_ns: int
    received_ns: int
    anomalous: bool
    timing_ms: Mapping[str, float]


class ResultReader:
    """Follows the results stream from its present end; use it as a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._seen: list[Seen] = []
        self._max_backlog = 0
        self._failure: redis.RedisError | None = None
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
        self._seen = []
        self._max_backlog = 0

    def wait_for(self, count: int, timeout_s: float) -> list[Seen]:
        """What was seen since `begin`, as soon as it is `count` results or the time is up."""
        deadline = time.monotonic() + timeout_s
        while len(self._seen) < count and self._failure is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if self._failure is not None:
            raise self._failure
        return list(self._seen)

    @property
    def max_backlog(self) -> int:
        """The most unread frames since `begin`."""
        return self._max_backlog

    def _run(self) -> None:
        keys = self._target.keys
        try:
            with connect(self._target.redis) as client:
                last = b"0"
                while not self._stopped.is_set():
                    reply = cast(Any, client.xread({keys.results: last}, count=_COUNT, block=_BLOCK_MS))
                    self._max_backlog = max(self._max_backlog, cast(int, client.xlen(keys.frames)))
                    for entry, fields in _entries(reply):
                        last = entry
                        self._seen.append(_seen(entry, fields))
        except redis.RedisError as error:
            self._failure = error


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the one stream asked for, in either protocol version's shape."""
    if not reply:
        return []
    value = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    return [entry for part in value for entry in part] if isinstance(reply, dict) else value


def _seen(entry: bytes, fields: Mapping[bytes, bytes]) -> Seen:
    received_ns = time.time_ns()
    meta = msgpack.unpackb(fields[META.encode()])
    published_ms = int(entry.partition(b"-")[0])
    return Seen(meta["ts_ns"], published_ms * 1_000_000, received_ns, bool(meta["pred_label"]), meta["timing_ms"])
