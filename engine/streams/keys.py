"""Every key and group name on the server, in one place."""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "engine"


@dataclass(frozen=True, slots=True)
class LineKeys:
    """The three streams of a line, and the marks of its kept frames that have ended (a sorted set).

    The braces are a cluster hash tag, so that they share a shard.
    """

    frames: str
    results: str
    dead: str
    ended: str


def line_keys(prefix: str, line: str) -> LineKeys:
    """The keys of a line under a prefix."""
    base = f"{prefix}:{{{line}}}"
    return LineKeys(frames=f"{base}:frames", results=f"{base}:results", dead=f"{base}:dead", ended=f"{base}:ended")
