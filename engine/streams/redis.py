"""Redis Streams: the source of frames and the sink of outcomes, with the delivery promise of docs/wire.md.

**Every frame entry ends as exactly one result or one dead entry**, also when consumers are killed, paused past their
claim, or race for the same entry. What must not be torn apart runs as one of the scripts in `scripts.py`.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from engine import config
from engine.config import Config
from engine.errors import ConfigError
from engine.streams.embedded import EmbeddedServer
from engine.streams.keys import line_keys
from engine.streams.link import Link
from engine.streams.sink import RedisSink
from engine.streams.source import RedisSource

__all__ = ["RedisSink", "RedisSource", "Streams", "connect", "read_password"]


@dataclass(frozen=True, slots=True)
class Streams:
    """Both ends of a process's lines, and the embedded server where there is one; a context manager.

    `url` says where they are, without a password.
    """

    source: RedisSource
    sink: RedisSink
    url: str
    server: EmbeddedServer | None = None

    def close(self) -> None:
        """Leave the group, close the connections, end the embedded server."""
        self.source.close()
        if self.server is not None:
            self.server.stop()

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.close()


def connect(settings: Config) -> Streams:
    """The streams of a configuration's lines.

    Nothing is sent to the server before the first use, so a server that is away is waited for by whoever reads.
    Raises ConfigError for a bad URL or password file, MissingExtraError where `embedded` is not installed.
    """
    server = None
    where = settings.redis
    if where.url == "embedded":
        server = EmbeddedServer()
        server.start()
        where = config.Redis(url=server.url, prefix=where.prefix, cluster="off")
    consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    link = Link(where, read_password(settings.redis), consumer)
    keys = {line.name: line_keys(where.prefix, line.name) for line in settings.line}
    source = RedisSource(link, keys, settings.delivery, consumer)
    return Streams(source, RedisSink(link, keys, settings), link.place, server)


def read_password(settings: config.Redis) -> str | None:
    """The server's password: REDIS_PASSWORD, else the first line of the configured file, else None."""
    if password := os.environ.get("REDIS_PASSWORD"):
        return password
    if settings.password_file is None:
        return None
    try:
        return Path(settings.password_file).read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"redis.password_file: {settings.password_file} cannot be read ({error})") from None
