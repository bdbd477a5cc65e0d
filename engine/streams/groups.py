"""The consumer group of each line."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from engine.errors import AwayError, StreamError
from engine.streams import scripts
from engine.streams.keys import GROUP, LineKeys
from engine.streams.link import Call, Link

log = logging.getLogger(__name__)

Time = tuple[bytes, bytes]  # seconds and microseconds, as the server's TIME


def open_groups(link: Link, keys: Mapping[str, LineKeys]) -> dict[str, Time | StreamError]:
    """Create the lines' groups where they are missing; the server's TIME for each line, or why it refused.

    Raises AwayError where the server cannot be reached.
    """
    replies = link.run(scripts.OPEN, [Call((key.frames, key.ended), (GROUP,)) for key in keys.values()])
    for reply in replies:
        if isinstance(reply, AwayError):
            raise reply
    return dict(zip(keys, replies, strict=True))


def reopen_groups(link: Link, keys: Mapping[str, LineKeys]) -> dict[str, Time | StreamError]:
    """`open_groups` for groups that were there before."""
    log.warning("%s: the consumer group is lost; creating it again", ", ".join(sorted(keys)))
    return open_groups(link, keys)
