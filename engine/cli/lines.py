"""Which server and lines a command means: flags, over a configuration file where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import config as configs
from engine.config import Config
from engine.errors import UsageError


def meant(
    config: Path | None, lines: Sequence[str], redis: str | None, prefix: str | None, bundle: str = "-"
) -> Config:
    """The configuration of the file, or of none, with other lines where some are named; `bundle` is theirs.

    Raises UsageError where no line is named, a name is none, or the server is an embedded one.
    """
    document: dict[str, Any] = {} if config is None else configs.read(config)
    given = {key: value for key, value in (("url", redis), ("prefix", prefix)) if value is not None}
    if given:
        document["redis"] = document.get("redis", {}) | given
    if lines:
        document["line"] = [{"name": name, "bundle": bundle} for name in lines]
    if "line" not in document:
        raise UsageError("no line is named; give --line NAME or --config FILE")
    parsed = configs.parse(document, where=config or Path("(flags)"))
    if parsed.redis.url == "embedded":
        raise UsageError("redis.url: an embedded server is gone with its process; give the URL of a server")
    return parsed
