"""The frames that are to be seen again, as they lie in a line's streams."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from engine.codec import DATA, META, decode_dead, decode_frame, decode_result, encode_frame
from engine.errors import ContractError, UsageError
from engine.streams.keys import LineKeys
from engine.streams.link import Link
from engine.types import DeadType

_PAGE = 64
_ENTRY = re.compile(r"[0-9]+(-[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Dead letters of some types (none: of all), or the kept frames with entry ids from `first` to `last`.

    Raises UsageError for a bound that is no entry id, or a type that there is none of.
    """

    kept: bool = False
    types: frozenset[str] = frozenset()
    first: str = "-"
    last: str = "+"

    def __post_init__(self) -> None:
        for flag, bound in (("--from", self.first), ("--to", self.last)):
            if bound not in ("-", "+") and not _ENTRY.fullmatch(bound):
                raise UsageError(f"{flag}: expected an entry id such as 1764086400123-0, got {bound!r}")
        if unknown := sorted(self.types - set(get_args(DeadType))):
            raise UsageError(f"--type: expected one of {', '.join(get_args(DeadType))}, got {', '.join(unknown)}")
        if self.kept and self.types:
            raise UsageError("--type: chooses among dead letters; leave it out with --from and --to")


@dataclass(frozen=True, slots=True)
class Past:
    """A frame of the past: the entry it had, its fields, and how it ended, as far as that is known.

    `before` is `good`, `review`, `reject`, `expired` or `dead: TYPE`; None where its end is not there any more.
    """

    entry: str
    meta: bytes
    data: bytes
    before: str | None
    score: float | None

    @property
    def whole(self) -> bool:
        """Whether there is anything to see: a frame that was trimmed before it ended has no fields."""
        return bool(self.meta or self.data)

    def fields(self) -> dict[str, bytes]:
        """What a producer would send; the frame's id is its old entry where it had none of its own."""
        return _with_id(self)


def pages(link: Link, keys: LineKeys, chosen: Chosen) -> Iterator[list[Past]]:
    """The chosen frames of a line, oldest first, a few at a time; raises StreamError where the server refuses."""
    client: Any = link.client(keys.frames)
    verdicts = _verdicts(link, keys) if chosen.kept else {}
    stream, start = (keys.frames, chosen.first) if chosen.kept else (keys.dead, "-")
    last = chosen.last if chosen.kept else "+"
    while True:
        with link.translated([stream]):
            page = client.xrange(stream, start, last, count=_PAGE)
        if not page:
            return
        start = f"({page[-1][0].decode()}"
        read = (_kept(entry, fields, verdicts) if chosen.kept else _dead(fields, chosen) for entry, fields in page)
        if found := [past for past in read if past is not None]:
            yield found


def end_of(fields: dict[bytes, bytes]) -> tuple[str, str, float | None]:
    """The frame, outcome and score of a result's fields."""
    result = decode_result({META.encode(): fields.get(META.encode(), b"")})  # without its pictures
    return result.frame, result.decision or result.status, result.pred_score


def _verdicts(link: Link, keys: LineKeys) -> dict[str, tuple[str, float | None]]:
    """Outcome and score of every result that is still there, by its frame."""
    client: Any = link.client(keys.results)
    found: dict[str, tuple[str, float | None]] = {}
    start = "-"
    with link.translated([keys.results]):
        while page := client.xrange(keys.results, start, "+", count=_PAGE):
            start = f"({page[-1][0].decode()}"
            for _, fields in page:
                frame, outcome, score = end_of(fields)
                found[frame] = (outcome, score)
    return found


def _kept(entry: bytes, fields: dict[bytes, bytes], verdicts: dict[str, tuple[str, float | None]]) -> Past:
    before, score = verdicts.get(entry.decode(), (None, None))
    meta, data = fields.get(META.encode(), b""), fields.get(DATA.encode(), b"")
    return Past(entry.decode(), meta, data, before, score)


def _dead(fields: dict[bytes, bytes], chosen: Chosen) -> Past | None:
    dead = decode_dead(fields)
    if chosen.types and dead.letter.type not in chosen.types:
        return None
    return Past(dead.frame, dead.meta, dead.data, f"dead: {dead.letter.type}", None)


def _with_id(past: Past) -> dict[str, bytes]:
    """The fields with an id; as they came where they have one, or break the contract anyway."""
    try:
        frame = decode_frame(past.meta, past.data)
    except ContractError:
        return {META: past.meta, DATA: past.data}
    return encode_frame(frame if frame.id is not None else replace(frame, id=past.entry))
