"""Reads a line's streams for an audit, while its consumers go on.

The order of reading makes that safe: what is still to end is looked at before the outputs are read, so a frame that is
in neither has not just slipped through between two looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.audit.verdict import Counts, Ends, Verdict, by_counts, by_entries, order
from engine.codec import ERROR, META, decode_dead, decode_result
from engine.errors import StreamError, UsageError
from engine.producer.journal import read_journal
from engine.streams import scripts
from engine.streams.keys import GROUP, LineKeys
from engine.streams.link import Call, Link

_PAGE = 500
_PICTURES = 32  # entries with pictures, which a script passes over in one go
_ORIGIN = "0-0"


def audit(link: Link, keys: LineKeys, journal: Path | None) -> Verdict:
    """What became of the frames in a producer's journal, of those that a line keeps, or of all as far as counts tell.

    Raises UsageError where the line has no stream of frames or the journal is none, StreamError where the server
    refuses.
    """
    return _Line(link, keys).audit(journal)


class _Line:
    """One line's streams."""

    def __init__(self, link: Link, keys: LineKeys) -> None:
        link.open()
        self._link = link
        self._keys = keys

    def audit(self, journal: Path | None) -> Verdict:
        """See the function `audit`."""
        accepted = None if journal is None else _accepted(journal)
        counts, kept = self._counts()
        if accepted is not None:
            return self._of_journal(accepted, kept)
        if kept:
            waiting = self._waiting_of_group()
            entries = list(self._kept())
            return by_entries("kept frames", entries, self._ends(), waiting.among(entries))
        return by_counts(counts)

    def _of_journal(self, accepted: Sequence[str], kept: bool) -> Verdict:
        """Only what has not ended yet is looked for among the frames, which have pictures."""
        ended = self._ends()
        open_ = [entry for entry in accepted if not ended.of(entry)]
        waiting = self._waiting_of_group().among(open_) if kept else self._present(open_)
        return by_entries("journal", accepted, self._ends(), waiting)

    def _counts(self) -> tuple[Counts, bool]:
        """All numbers at one moment, and whether the line keeps its frames."""
        keys = self._keys
        reply = self._run(scripts.COUNTS, [keys.frames, keys.ended, keys.results, keys.dead], GROUP)
        if not reply:
            raise UsageError(
                f"{keys.frames}: no such stream at {self._link.place}; expected a line that has had frames: "
                f"check --line, --prefix and --redis"
            )
        frames, waiting, results, dead, kept = (int(number) for number in reply)
        return Counts(frames, waiting, results, dead), bool(kept)

    def _present(self, entries: Sequence[str]) -> set[str]:
        """Those of some entries that the stream of frames still holds."""
        found: set[str] = set()
        for start in range(0, len(entries), _PICTURES):
            part = entries[start : start + _PICTURES]
            found.update(entry.decode() for entry in self._run(scripts.PRESENT, [self._keys.frames], *part))
        return found

    def _kept(self) -> Iterator[str]:
        """Every entry of the stream of frames."""
        start = "-"
        while page := self._run(scripts.IDS, [self._keys.frames], start, _PICTURES):
            yield from (entry.decode() for entry in page)
            start = f"({page[-1].decode()}"

    def _waiting_of_group(self) -> _Undone:
        """What the group holds pending or has not handed out; all where there is no group."""
        client: Any = self._link.client(self._keys.frames)
        with self._link.translated([self._keys.frames]):
            groups = {group["name"]: group for group in client.xinfo_groups(self._keys.frames)}
            if GROUP.encode() not in groups:
                return _Undone(_ORIGIN, frozenset())
            last = groups[GROUP.encode()]["last-delivered-id"].decode()
            return _Undone(last, frozenset(self._pending(client)))

    def _pending(self, client: Any) -> Iterator[str]:
        start = "-"
        while rows := client.xpending_range(self._keys.frames, GROUP, start, "+", _PAGE):
            yield from (row["message_id"].decode() for row in rows)
            start = f"({rows[-1]['message_id'].decode()}"

    def _ends(self) -> Ends:
        """All that was published and is still there."""
        results, first_result = self._read(self._keys.results)
        dead, first_dead = self._read(self._keys.dead)
        return Ends(results, dead, [first for first in (first_result, first_dead) if first is not None])

    def _read(self, key: str) -> tuple[Counter[str], str | None]:
        """How often each frame is in an output stream, and its horizon where entries were trimmed."""
        client: Any = self._link.client(key)
        found: Counter[str] = Counter()
        first, start = "", "-"
        with self._link.translated([key]):
            while page := client.xrange(key, start, "+", count=_PAGE):
                found.update(_frame(fields) for _, fields in page)
                first = first or page[0][0].decode()
                start = f"({page[-1][0].decode()}"
            trimmed = client.exists(key) and client.xinfo_stream(key)["entries-added"] > found.total()
        return found, first if trimmed else None

    def _run(self, script: scripts.Script, keys: Sequence[str], *args: str | int) -> Any:
        (reply,) = self._link.run(script, [Call(keys, args)])
        if isinstance(reply, StreamError):
            raise reply
        return reply


class _Undone:
    """What was still to end when it was asked: pending entries, and all after the last one handed out."""

    def __init__(self, last: str, pending: frozenset[str]) -> None:
        self._last = last
        self._pending = pending

    def among(self, entries: Sequence[str]) -> set[str]:
        """Those of some entries."""
        last = order(self._last)
        return {entry for entry in entries if entry in self._pending or order(entry) > last}


def _accepted(journal: Path) -> list[str]:
    """The entries of a journal, in its order; raises UsageError where it cannot be read or is none."""
    try:
        entries = [entry for entry, _ in read_journal(journal)]
        for entry in entries:
            order(entry)
    except OSError as error:
        raise UsageError(f"--journal: {journal} cannot be read ({error.strerror}); give what `push` wrote") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"--journal: {journal} is no journal of `engine push` ({error})") from None
    return entries


def _frame(fields: dict[bytes, bytes]) -> str:
    """The frame of a result or dead letter, without decoding pictures."""
    if ERROR.encode() in fields:
        return decode_dead({ERROR.encode(): fields[ERROR.encode()]}).frame
    return decode_result({META.encode(): fields.get(META.encode(), b"")}).frame
