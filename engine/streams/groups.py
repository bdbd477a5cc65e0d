"""The consumer group of each line."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import StreamError
from engine.streams import scripts
from engine.streams.keys import GROUP, LineKeys
from engine.streams.link import Call, Link


def open_groups(link: Link, keys: Mapping[str, LineKeys]) -> dict[str, tuple[bytes, bytes]]:
    """Create the lines' groups where they are missing; returns the server's TIME for each line."""
    replies = link.run(scripts.OPEN, [Call((key.frames,), (GROUP,)) for key in keys.values()])
    for reply in replies:
        if isinstance(reply, StreamError):
            raise reply
    return dict(zip(keys, replies, strict=True))
