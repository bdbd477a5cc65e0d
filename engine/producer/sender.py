"""Sends frames to a line's stream: many in one round trip, each exactly once, never past a backlog limit.

**A frame that `put` took is in the stream exactly once when `close` returns, or `close` raises and says how many are
not.** A connection that breaks during a round trip leaves open whether the server did it. So frames travel through one
script that also writes a receipt (a key beside the stream with the round trip's token and the entry ids it made), and
a repeated round trip with the same token only gets the receipt back.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import redis
from redis.commands.core import Script
from redis.exceptions import OutOfMemoryError

from engine.errors import AwayError, StreamError
from engine.producer.buffer import Buffer, Parcel
from engine.producer.journal import Journal
from engine.streams.keys import GROUP, LineKeys
from engine.streams.link import Link
from engine.streams.scripts import BACKLOG, LUA_BACKLOG

log = logging.getLogger(__name__)
T = TypeVar("T")

# KEYS frames, marks of kept frames, receipt; ARGV token, most backlog, receipt's life in ms, group, meta, data, ...
# -> {backlog, {entry, ...}}
_SCRIPT = (
    "#!lua\n"
    + LUA_BACKLOG
    + """
local function unread()
  return backlog(KEYS[1], KEYS[2], ARGV[4])
end
local function reply(ids)
  return {unread(), ids}
end
local receipt = redis.call('LRANGE', KEYS[3], 0, -1)
if table.remove(receipt, 1) == ARGV[1] then
  return reply(receipt)
end
local ids = {}
local room = #ARGV
if tonumber(ARGV[2]) > 0 then
  room = tonumber(ARGV[2]) - unread()
end
for i = 5, #ARGV, 2 do
  if #ids >= room then break end
  ids[#ids + 1] = redis.call('XADD', KEYS[1], '*', 'meta', ARGV[i], 'data', ARGV[i + 1])
end
if #ids > 0 then
  redis.call('DEL', KEYS[3])
  redis.call('RPUSH', KEYS[3], ARGV[1], unpack(ids))
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
return reply(ids)
"""
)
_RECEIPT_MS = 3_600_000
_BUFFER_FRAMES = 64
_BUFFER_BYTES = 4 << 20
_POLL_S = 0.005
_PUT_S = 0.1
_RETRY_S = 0.2
_REPORT_S = 10.0

_REFUSED_FOR_NOW = ("MISCONF", "NOREPLICAS")  # a full disk, too few replicas


@dataclass(slots=True)
class Sent:
    """What a sender has done so far."""

    frames: int = 0
    payload_bytes: int = 0
    waited_s: float = 0.0  # for the backlog to shrink
    interruptions: int = 0  # times the server was away or refused for a while


class Sender:
    """Owns the thread that talks to the server. `max_backlog` 0 means no limit."""

    def __init__(self, link: Link, keys: LineKeys, max_backlog: int, journal: Journal | None = None) -> None:
        self.sent = Sent()
        self._link = link
        self._stream = keys.frames
        receipt = f"{keys.frames}:push:{uuid.uuid4().hex}"  # on the stream's shard: the braces are in its name
        self._keys = [keys.frames, keys.ended, receipt]
        self._max_backlog = max_backlog
        self._journal = journal
        self._backlog = 0
        self._round_trips = 0
        self._unsent = 0
        self._buffer = Buffer(_BUFFER_FRAMES, _BUFFER_BYTES)
        self._abandoned = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def put(self, parcel: Parcel, stop: threading.Event) -> bool:
        """Take a frame, waiting for room; False where `stop` was set first, and then the frame was not taken.

        Raises StreamError when the server refuses frames for good.
        """
        while not stop.is_set():
            self._raise_failure()
            if self._buffer.put(parcel, _PUT_S):
                return True
        return False

    def close(self, stop: threading.Event, grace_s: float) -> None:
        """Send what was taken and end; once `stop` is set, give up after `grace_s`.

        Raises StreamError where frames that were taken could not be sent.
        """
        self._buffer.close()
        while self._thread.is_alive() and not stop.is_set():
            self._thread.join(_PUT_S)
        self._thread.join(grace_s)
        self._abandoned.set()
        self._thread.join()
        self._raise_failure()
        if left := self._unsent + len(self._buffer):
            raise StreamError(
                f"{self._stream}: {left} frames were not sent, the server took none for {grace_s:g} s after the stop; "
                f"start the server and push them again"
            )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while batch := self._buffer.take():
                self._deliver(batch)
        except _Abandoned:
            pass
        except Exception as error:  # a thread's errors belong to whoever waits for it
            self._failure = error

    def _deliver(self, batch: Sequence[Parcel]) -> None:
        """Send a batch, part by part as the backlog limit lets it."""
        while batch:
            self._unsent = len(batch)
            self._await_room()
            entries = self._round_trip(batch)
            accepted, batch = batch[: len(entries)], batch[len(entries) :]
            if self._journal is not None:
                self._journal.write((e, p.id or e) for e, p in zip(entries, accepted, strict=True))
            self.sent.frames += len(entries)
            self.sent.payload_bytes += sum(parcel.size_bytes for parcel in accepted)
        self._unsent = 0

    def _round_trip(self, batch: Sequence[Parcel]) -> list[str]:
        """Entry ids of the leading frames that the stream had room for."""
        self._round_trips += 1
        arguments: list[bytes | str | int] = [str(self._round_trips), self._max_backlog, _RECEIPT_MS, GROUP]
        for parcel in batch:
            arguments += [parcel.meta, parcel.data]
        self._backlog, entries = self._insist(lambda client: _run(client, self._keys, arguments))
        return [entry.decode() for entry in entries]

    def _await_room(self) -> None:
        """Wait until the backlog, as last seen or asked again, is below the limit."""
        started = reported = time.monotonic()
        while 0 < self._max_backlog <= self._backlog:
            now = time.monotonic()
            if now - reported >= _REPORT_S:
                log.warning("%s: waiting, backlog %d of at most %d", self._stream, self._backlog, self._max_backlog)
                reported = now
            self._pause(_POLL_S)
            self._backlog = self._insist(self._ask_backlog)
        self.sent.waited_s += time.monotonic() - started

    def _ask_backlog(self, client: redis.Redis) -> int:
        return cast(int, Script(client, BACKLOG.source)(self._keys[:2], [GROUP]))

    def _insist(self, operation: Callable[[redis.Redis], T]) -> T:
        """Repeat an operation while the server is away; raises StreamError when it refuses for good."""
        away = False
        while True:
            try:
                self._link.open()
                with self._link.translated():
                    result = operation(self._link.client(self._stream))
            except StreamError as error:
                if not _passes(error):
                    raise StreamError(f"{self._stream}: frames cannot be sent: {error}") from error
                if not away:
                    log.warning("%s: holding frames: %s", self._stream, error)
                    self.sent.interruptions += 1
                away = True
                self._pause(_RETRY_S)
            else:
                if away:
                    log.warning("%s: sending again", self._stream)
                return result

    def _pause(self, seconds: float) -> None:
        if self._abandoned.wait(seconds):
            raise _Abandoned


class _Abandoned(Exception):  # noqa: N818 - a signal, not an error
    """The sender was told to give up what it holds."""


def _run(client: redis.Redis, keys: list[str], arguments: list[bytes | str | int]) -> tuple[int, list[bytes]]:
    return cast(tuple[int, list[bytes]], Script(client, _SCRIPT)(keys, arguments))


def _passes(error: StreamError) -> bool:
    """Whether a failure is one that ends by itself or by an operator's hand, without the producer being changed."""
    if isinstance(error, AwayError) or isinstance(error.__cause__, OutOfMemoryError):
        return True
    return str(error.__cause__).startswith(_REFUSED_FOR_NOW)
