"""Sends frames of the past into a line of their own and watches it with the chosen bundle until all have ended.

They travel as any frame does, so the delivery promise holds for them too: what a replay leaves is a line like others,
with results, dead letters and an audit. A few are under way at a time: the server holds no second copy of them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from engine.codec import decode_dead
from engine.config import Config
from engine.errors import UsageError
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch, lines
from engine.replay.entries import Chosen, Past, end_of, pages
from engine.streams.keys import LineKeys, line_keys
from engine.streams.link import Link
from engine.streams.redis import connect, read_password


@dataclass(frozen=True, slots=True)
class Row:
    """One frame: its old entry and its new one, and how it ended `before` and `after`; scores where it has some."""

    frame: str
    replayed: str
    before: str | None
    after: str | None
    score_before: float | None
    score_after: float | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did: `gone` frames had been trimmed before they ended and cannot be seen again."""

    line: str
    model: str
    rows: tuple[Row, ...]
    gone: int

    def outcomes(self) -> dict[tuple[str | None, str | None], int]:
        """How many frames ended how, before and after."""
        return dict(Counter((row.before, row.after) for row in self.rows))

    def document(self) -> dict[str, Any]:
        """The JSON of `engine replay --json`."""
        after = Counter(row.after or "unknown" for row in self.rows)
        counted = {"frames": len(self.rows), "gone": self.gone, "outcomes": dict(after)}
        return {"line": self.line, "model": self.model, **counted, "rows": [asdict(row) for row in self.rows]}


def replay(settings: Config, origin: str, chosen: Chosen) -> Replay:
    """See the chosen frames of the line `origin` again, in the one line of `settings` and by its bundle.

    Raises UsageError where that line is `origin` or has frames waiting, and where there is no line `origin`;
    BundleError, StreamError.
    """
    (line,) = settings.line
    if line.name == origin:
        raise UsageError(f"--as: expected another line than {origin}, whose frames are seen again")
    settings = msgspec.structs.replace(settings, delivery=msgspec.structs.replace(settings.delivery, keep_frames=False))
    (loaded,) = lines.load_all(settings)
    link = Link(settings.redis, read_password(settings.redis), "engine-replay")
    try:
        link.open()
        old = line_keys(settings.redis.prefix, origin)
        _require(link, origin, old)
        run = _Replay(link, settings, line_keys(settings.redis.prefix, line.name), loaded.watches(settings))
        return run.of(pages(link, old, chosen), loaded.model)
    finally:
        link.close()
        loaded.predictor.close()


def _require(link: Link, line: str, keys: LineKeys) -> None:
    """Raise UsageError for a line of which the server has nothing."""
    streams = [keys.frames, keys.results, keys.dead]
    client: Any = link.client(keys.frames)
    with link.translated(streams):
        known = client.exists(*streams)
    if not known:
        raise UsageError(
            f"--line: expected a line of which the server has frames, results or dead letters, got {line}: there is no "
            f"{', '.join(streams)}"
        )


class _Replay:
    """One replay into the line of `keys`."""

    def __init__(self, link: Link, settings: Config, keys: LineKeys, watches: Sequence[Watch]) -> None:
        self._link = link
        self._client: Any = link.client(keys.frames)
        self._settings = settings
        self._keys = keys
        self._watches = watches

    def of(self, past: Iterator[list[Past]], model: str) -> Replay:
        """See pages of frames again, one after the other."""
        with self._link.translated([self._keys.frames]):
            if waiting := self._client.xlen(self._keys.frames):
                raise UsageError(
                    f"{self._keys.frames}: {waiting} frames wait there already; serve that line first, or give another "
                    f"one with --as"
                )
        rows: list[Row] = []
        gone = 0
        for page in past:
            whole = [frame for frame in page if frame.whole]
            gone += len(page) - len(whole)
            rows += self._again(whole)
        return Replay(self._watches[0].line, model, tuple(rows), gone)

    def _again(self, frames: Sequence[Past]) -> Iterator[Row]:
        keys = self._keys
        with self._link.translated([keys.frames, keys.results, keys.dead]):
            since = {key: self._last(key) for key in (keys.results, keys.dead)}
            entries = [self._client.xadd(keys.frames, frame.fields()).decode() for frame in frames]
        self._work()
        with self._link.translated([keys.results, keys.dead]):
            ended = self._ended(since)
        for frame, entry in zip(frames, entries, strict=True):
            after, score = ended.get(entry, (None, None))
            yield Row(frame.entry, entry, frame.before, after, frame.score, score)

    def _work(self) -> None:
        """Watch the line until nothing is left in it."""
        with connect(self._settings) as streams:
            Pipeline(streams.source, streams.sink, self._watches, self._settings, Metrics()).run(burst=True)

    def _last(self, key: str) -> str:
        """The last entry of an output stream."""
        newest = self._client.xrevrange(key, count=1)
        return newest[0][0].decode() if newest else "0-0"

    def _ended(self, since: dict[str, str]) -> dict[str, tuple[str, float | None]]:
        """Outcome and score of every frame that ended since, by its entry."""
        found: dict[str, tuple[str, float | None]] = {}
        for _, fields in self._client.xrange(self._keys.results, f"({since[self._keys.results]}", "+"):
            frame, outcome, score = end_of(fields)
            found[frame] = (outcome, score)
        for _, fields in self._client.xrange(self._keys.dead, f"({since[self._keys.dead]}", "+"):
            dead = decode_dead(fields)
            found[dead.frame] = (f"dead: {dead.letter.type}", None)
        return found
