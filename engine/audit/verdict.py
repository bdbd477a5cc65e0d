"""What became of a line's frames: pure arithmetic on what was read from its streams."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

How = Literal["counts", "kept frames", "journal"]
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Counts:
    """A line's streams at one moment: entries ever added to each, and frames still to end."""

    frames: int
    waiting: int
    results: int
    dead: int


@dataclass(frozen=True, slots=True)
class Ends:
    """What the two output streams hold: how often each frame ended as a result and as a dead letter.

    `horizons` are the ids before which a stream may have held ends that were trimmed since; "" where one was trimmed
    to nothing.
    """

    results: Mapping[str, int]
    dead: Mapping[str, int]
    horizons: Sequence[str] = ()

    def of(self, entry: str) -> int:
        """How often a frame ended."""
        return self.results.get(entry, 0) + self.dead.get(entry, 0)

    def forgotten(self, entry: str) -> bool:
        """Whether a frame's end may have been trimmed: an end is published after its frame was added."""
        return any(not horizon or order(entry) < order(horizon) for horizon in self.horizons)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many of `frames` ended how. `named` are the first entry ids of what is wrong, where they are known."""

    how: How
    frames: int
    results: int
    dead: int
    waiting: int
    missing: int
    double: int
    unverifiable: int
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every frame ended exactly once or is still to end."""
        return not (self.missing or self.double or self.unverifiable)

    def document(self) -> dict[str, Any]:
        """The line's part of `engine audit --json`."""
        numbers = ("how", "frames", "results", "dead", "waiting", "missing", "double", "unverifiable")
        named = {kind: list(entries) for kind, entries in self.named.items()}
        return {"holds": self.holds, **{name: getattr(self, name) for name in numbers}, "named": named}


def by_counts(counts: Counts) -> Verdict:
    """What the numbers alone say: one frame missing and another one ended twice look as if all were well."""
    left = counts.frames - counts.results - counts.dead - counts.waiting
    return Verdict(
        how="counts",
        frames=counts.frames,
        results=counts.results,
        dead=counts.dead,
        waiting=counts.waiting,
        missing=max(0, left),
        double=max(0, -left),
        unverifiable=0,
    )


def by_entries(how: How, entries: Iterable[str], ends: Ends, waiting: Collection[str]) -> Verdict:
    """Frame by frame. `waiting` were still to end before `ends` were read, so what is in both has ended since."""
    known = list(dict.fromkeys(entries))
    open_ = [entry for entry in known if not ends.of(entry)]
    lost = [entry for entry in open_ if entry not in waiting]
    missing = tuple(entry for entry in lost if not ends.forgotten(entry))
    unverifiable = tuple(entry for entry in lost if ends.forgotten(entry))
    double = tuple(entry for entry in known if ends.of(entry) > 1)
    wrong = {"missing": missing, "double": double, "unverifiable": unverifiable}
    return Verdict(
        how=how,
        frames=len(known),
        results=sum(entry in ends.results for entry in known),
        dead=sum(entry in ends.dead for entry in known),
        waiting=len(open_) - len(lost),
        missing=len(missing),
        double=len(double),
        unverifiable=len(unverifiable),
        named={kind: found[:_NAMED] for kind, found in wrong.items() if found},
    )


def order(entry: str) -> tuple[int, int]:
    """An entry id as the server orders them."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq)
