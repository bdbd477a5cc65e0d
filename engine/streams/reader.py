"""What readers of a line do: follow its results and dead letters in the order they were published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from engine.codec import DeadEntry, decode_dead, decode_result
from engine.streams.keys import LineKeys
from engine.types import Result

_COUNT = 500


@dataclass(frozen=True, slots=True)
class Published:
    """A result or a dead letter and the server's time of its publication, ms since the epoch."""

    published_ms: int
    end: Result | DeadEntry


class LineReader:
    """Reads a line's two output streams from their beginning; `client` stays the caller's."""

    def __init__(self, client: redis.Redis, keys: LineKeys) -> None:
        self._client = client
        self._decoders: dict[bytes, Callable[[Mapping[bytes, bytes]], Result | DeadEntry]] = {
            keys.results.encode(): decode_result,
            keys.dead.encode(): decode_dead,
        }
        self._last: dict[bytes, bytes] = dict.fromkeys(self._decoders, b"0")

    def read(self, block_ms: int) -> list[Published]:
        """What was published since the last call, waiting up to `block_ms` for the first."""
        client: Any = self._client
        reply = client.xread(self._last, count=_COUNT, block=block_ms)
        found: list[Published] = []
        for key, entries in _streams(reply):
            for entry, fields in entries:
                self._last[key] = entry
                found.append(Published(int(entry.partition(b"-")[0]), self._decoders[key](fields)))
        return found


def _streams(reply: Any) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """XREAD's answer in either protocol version as (key, entries) pairs."""
    if isinstance(reply, dict):
        return [(key, [entry for part in parts for entry in part]) for key, parts in reply.items()]
    return list(reply or ())
