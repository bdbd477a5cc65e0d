"""The source of frames: new entries, those of consumers that are gone, and the claim on what is held."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine import config
from engine.errors import AwayError, StreamError
from engine.streams import scripts
from engine.streams.base import Claim
from engine.streams.groups import Time, open_groups, reopen_groups
from engine.streams.keys import GROUP, LineKeys
from engine.streams.link import Call, GroupLostError, Link, exchange
from engine.streams.refusals import Refusals
from engine.streams.shards import ShardReads
from engine.types import Delivery

log = logging.getLogger(__name__)

_LineCall = tuple[str, tuple[str | int, ...]]  # a line and a script's arguments
_SHORT_BLOCK_MS = 10  # where not all lines fit into one read
_TRIM_CHUNK = 256  # entries a script may look at, so that it does not hold up the server
_SWEEP_S = 10.0
_FIRST = "-"
_READ = "read"
_RECURRING = (scripts.CLAIM, scripts.BACKLOG, scripts.SWEEP, scripts.TRIM)  # whose next success ends a refusal


class RedisSource:
    """Reads the lines of one process; see `FrameSource` for the promises. Use from any number of threads."""

    def __init__(self, link: Link, keys: Mapping[str, LineKeys], delivery: config.Delivery, consumer: str) -> None:
        self._link = link
        self._keys = keys
        self._delivery = delivery
        self._consumer = consumer
        self._line_of_key = {key.frames.encode(): line for line, key in keys.items()}
        self._clock_ms = dict.fromkeys(keys, 0.0)  # server time less this process's monotonic time
        self._opened = False
        self._drains = dict.fromkeys(keys, _FIRST)  # where to go on with what is pending for this consumer
        self._waiting: list[str] = []  # lines with suspects left
        self._turn = 0
        self._swept_s = time.monotonic()
        self._refusals = Refusals()
        self._shards = ShardReads()

    @property
    def consumer(self) -> str:
        """See `FrameSource.consumer`."""
        return self._consumer

    def refused(self) -> Mapping[str, StreamError]:
        """See `FrameSource.refused`."""
        return self._refusals.errors()

    def now_ms(self, line: str) -> float:
        """See `FrameSource.now_ms`."""
        return self._clock_ms[line] + time.monotonic() * 1e3

    def read(self, max_frames: int, block_ms: int, skip: Collection[str] = ()) -> list[Delivery]:
        """See `FrameSource.read`."""
        self._open()
        wanted = [line for line in self._keys if line not in skip]
        try:
            if due := self._read_apart(self._refusals.due(wanted), max_frames, 0):
                return due
            refused = self._refusals.errors()
            if len(refused) == len(self._keys):
                raise next(iter(refused.values()))
            willing = [line for line in wanted if line not in refused]
            lines = self._take_turns(willing, max_frames)
            if not lines:
                time.sleep(block_ms / 1e3)
                return []
            if len(lines) < len(willing):
                block_ms = min(block_ms, _SHORT_BLOCK_MS)
            return self._drain(lines, max_frames) or self._read_new(lines, max_frames, block_ms)
        except AwayError:
            self._drains = dict.fromkeys(self._keys, _FIRST)
            raise

    def claim(self, max_frames: int, *, alone: bool) -> Claim:
        """See `FrameSource.claim`."""
        self._open()
        if own := self._drain(list(self._keys), max_frames):
            return Claim(own, waiting=bool(self._waiting))
        suspect = alone and bool(self._waiting)
        lines = self._waiting[:1] if suspect else list(self._keys)
        most = -(-max_frames // len(lines))
        args = (GROUP, self._consumer, self._delivery.claim_idle_ms, most, self._delivery.max_deliveries, int(suspect))
        deliveries: list[Delivery] = []
        for line, reply in zip(lines, self._taking(scripts.CLAIM, [(line, args) for line in lines]), strict=True):
            if reply is None:
                self._waiting = [other for other in self._waiting if other != line]
                continue
            seconds, microseconds, waiting, items = reply
            self._set_clock(line, seconds, microseconds)
            deliveries += (_delivery(line, *item) for item in items)
            self._waiting = [other for other in self._waiting if other != line] + ([line] if waiting else [])
        return Claim(deliveries, waiting=bool(self._waiting))

    def renew(self, held: Sequence[Delivery]) -> list[Delivery]:
        """See `FrameSource.renew`."""
        calls = [(d.line, (GROUP, self._consumer, d.entry)) for d in held]
        return [d for d, ours in zip(held, self._run(scripts.RENEW, calls), strict=True) if ours == 0]

    def release(self, held: Sequence[Delivery]) -> None:
        """See `FrameSource.release`."""
        idle = self._delivery.claim_idle_ms
        calls = [(d.line, (GROUP, self._consumer, idle, d.entry, max(0, d.deliveries - 1))) for d in held]
        self._run(scripts.RELEASE, calls)

    def backlog(self) -> dict[str, int]:
        """See `FrameSource.backlog`."""
        self._open()
        replies = self._run(scripts.BACKLOG, [(line, (GROUP,)) for line in self._keys])
        return {line: int(n) for line, n in zip(self._keys, replies, strict=True) if n is not None}

    def tend(self) -> dict[str, int]:
        """See `FrameSource.tend`."""
        self._open()
        if time.monotonic() - self._swept_s > _SWEEP_S:
            self._swept_s = time.monotonic()
            idle = self._delivery.claim_idle_ms
            self._run(scripts.SWEEP, [(line, (GROUP, self._consumer, idle)) for line in self._keys])
        if not self._delivery.frames_maxlen:
            return {}
        return {line: unread for line in self._keys if (unread := self._trim(line))}

    def close(self) -> None:
        """See `FrameSource.close`."""
        late = self._shards.close()
        if self._opened:
            try:
                self.release(late)
                self._run(scripts.SWEEP, [(line, (GROUP, self._consumer, -1)) for line in self._keys])
            except StreamError as error:
                log.warning("left the group without a farewell: %s", error)
        self._link.close()

    def _open(self) -> None:
        self._link.open()
        if not self._opened:
            self._note_groups(open_groups(self._link, self._keys))
            self._opened = True

    def _reopen(self, lines: Collection[str]) -> None:
        self._note_groups(reopen_groups(self._link, {line: self._keys[line] for line in lines}))

    def _note_groups(self, replies: Mapping[str, Time | StreamError]) -> None:
        for line, reply in replies.items():
            if isinstance(reply, StreamError):
                self._refusals.settle(line, _READ, reply)
            else:
                self._set_clock(line, *reply)

    def _set_clock(self, line: str, seconds: bytes, microseconds: bytes) -> None:
        self._clock_ms[line] = int(seconds) * 1e3 + int(microseconds) / 1e3 - time.monotonic() * 1e3

    def _taking(self, script: scripts.Script, calls: Sequence[_LineCall]) -> list[Any]:
        """Run a script that hands entries over: where a reply may be lost, what it handed over is drained next."""
        try:
            return self._run(script, calls)
        except StreamError:
            self._drains = dict.fromkeys(self._keys, _FIRST)
            raise

    def _run(self, script: scripts.Script, calls: Sequence[_LineCall]) -> list[Any]:
        """Run a script on lines, again where the group was lost; each reply, None for a line that is refused."""
        prepared = [Call((self._keys[line].frames, self._keys[line].ended), args) for line, args in calls]
        replies = self._link.run(script, prepared)
        lost = [i for i, reply in enumerate(replies) if isinstance(reply, GroupLostError)]
        if lost:
            self._reopen({calls[i][0] for i in lost})
            for i, reply in zip(lost, self._link.run(script, [prepared[i] for i in lost]), strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, AwayError):
                raise reply
        refused = [reply if isinstance(reply, StreamError) else None for reply in replies]
        if script in _RECURRING:
            for (line, _), error in zip(calls, refused, strict=True):
                self._refusals.settle(line, script.sha, error)
        return [reply if error is None else None for reply, error in zip(replies, refused, strict=True)]

    def _take_turns(self, lines: list[str], max_frames: int) -> list[str]:
        """All lines, or a changing choice of them where there is not room for a frame of each."""
        if len(lines) <= max_frames:
            return lines
        self._turn = (self._turn + max_frames) % len(lines)
        return (lines[self._turn :] + lines[: self._turn])[:max_frames]

    def _drain(self, lines: Sequence[str], max_frames: int) -> list[Delivery]:
        """The next page of what is pending for this consumer, until there is none left.

        What it was given more than once is left to be claimed as a suspect once it is idle.
        """
        todo = [line for line in lines if line in self._drains]
        calls = [(line, (GROUP, self._consumer, self._drains[line], max_frames)) for line in todo]
        deliveries: list[Delivery] = []
        for line, items in zip(todo, self._run(scripts.OWN, calls), strict=True):
            if items is None:
                continue
            deliveries += (_delivery(line, *item) for item in items if item[1] <= 1)
            if len(items) < max_frames:
                del self._drains[line]
            else:
                self._drains[line] = f"({items[-1][0].decode()}"
        return deliveries

    def _read_new(self, lines: Sequence[str], max_frames: int, block_ms: int) -> list[Delivery]:
        count = max(1, max_frames // len(lines))
        if self._link.clustered:
            return self._shards.read(self._read_apart, lines, count, block_ms)
        try:
            return self._read_shard(lines, count, block_ms)
        except AwayError:
            raise
        except StreamError:  # one of the lines is refused, or has lost its group: the server does not say which
            return self._read_apart(lines, count, 0)

    def _read_apart(self, lines: Sequence[str], count: int, block_ms: int) -> list[Delivery]:
        """New entries of one line after the other, so that a refusal is that line's."""
        deliveries: list[Delivery] = []
        for line in lines:
            try:
                deliveries += self._read_shard([line], count, block_ms)
                self._refusals.settle(line, _READ, None)
            except AwayError:
                raise
            except GroupLostError:
                self._reopen([line])
            except StreamError as error:
                self._refusals.settle(line, _READ, error)
        return deliveries

    def _read_shard(self, lines: Sequence[str], count: int, block_ms: int) -> list[Delivery]:
        """New entries of lines that lie on one shard."""
        keys = [self._keys[line].frames for line in lines]
        block = ("BLOCK", block_ms) if block_ms else ()
        command = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, *block, "STREAMS", *keys)
        with self._link.translated(keys):
            (reply,) = exchange(self._link.client(keys[0]), [(*command, *(">" for _ in keys))])
            if isinstance(reply, Exception):
                raise reply
        return [
            _delivery(self._line_of_key[key], entry, 1, flat) for key, entries in reply or () for entry, flat in entries
        ]

    def _trim(self, line: str) -> int:
        """Trim in chunks until the stream is short enough, or all that is left over is held by consumers."""
        args = (GROUP, self._delivery.frames_maxlen, _TRIM_CHUNK)
        total, before = 0, -1
        while reply := self._run(scripts.TRIM, [(line, args)])[0]:
            unread, over = (int(n) for n in reply)
            total += unread
            if over <= 0 or over == before:
                break
            before = over
        return total


def _delivery(line: str, entry: bytes, deliveries: int, flat: list[bytes] | None) -> Delivery:
    """An entry as a delivery; `flat` is the entry's fields and values in turn, None where it was trimmed."""
    if flat is None:
        return Delivery(line, entry.decode(), deliveries, None, None)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Delivery(line, entry.decode(), deliveries, fields.get(b"meta", b""), fields.get(b"data"))
