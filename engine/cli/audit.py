"""`engine audit`: frames in against results and dead letters out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine import config as configs
from engine.audit import Verdict
from engine.audit import audit as look
from engine.cli import console
from engine.config import Redis
from engine.errors import UsageError
from engine.streams.keys import line_keys
from engine.streams.link import Link
from engine.streams.redis import read_password

_COLUMNS = ("frames", "results", "dead", "waiting", "missing", "double", "unverifiable")


def audit(
    line: Annotated[list[str] | None, typer.Option(help="A line's name; may be repeated.")] = None,
    config: Annotated[Path | None, typer.Option(help="engine.toml: its server, and its lines without --line.")] = None,
    redis: Annotated[str | None, typer.Option(help="The server's URL.")] = None,
    prefix: Annotated[str | None, typer.Option(help="First part of the keys.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="What `engine push --journal` wrote: check each of its frames.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> int:
    """Did every frame end exactly once? Exit 1 if any is missing, double or unverifiable. Consumers may be running."""
    server, lines = where(config, line, redis, prefix)
    if journal is not None and len(lines) != 1:
        raise UsageError(f"--journal: expected one line, got {len(lines)}; name it with --line")
    link = Link(server, read_password(server), "engine-audit")
    try:
        found = {name: look(link, line_keys(server.prefix, name), journal) for name in lines}
    finally:
        link.close()
    holds = all(verdict.holds for verdict in found.values())
    if json:
        console.print_json({"holds": holds, "lines": {name: verdict.document() for name, verdict in found.items()}})
    else:
        _print(found)
    return 0 if holds else 1


def where(
    config: Path | None, lines: list[str] | None, redis: str | None, prefix: str | None
) -> tuple[Redis, tuple[str, ...]]:
    """The server and the lines that are meant; raises UsageError where there is none or a name is none."""
    document: dict[str, Any] = {} if config is None else configs.read(config)
    given = {key: value for key, value in (("url", redis), ("prefix", prefix)) if value is not None}
    if given:
        document["redis"] = document.get("redis", {}) | given
    if lines:
        document["line"] = [{"name": name, "bundle": "unused"} for name in lines]
    if "line" not in document:
        raise UsageError("no line is named; give --line NAME or --config FILE")
    parsed = configs.parse(document, where=config or Path("(flags)"))
    if parsed.redis.url == "embedded":
        raise UsageError("redis.url: an embedded server is gone with its process; give the URL of a server")
    return parsed.redis, tuple(each.name for each in parsed.line)


def _print(found: dict[str, Verdict]) -> None:
    table = Table()
    for name in ("line", "by", *_COLUMNS):
        table.add_column(name, justify="left" if name in ("line", "by") else "right")
    for name, verdict in found.items():
        table.add_row(name, verdict.how, *(str(getattr(verdict, column)) for column in _COLUMNS))
    console.out.print(table)
    for name, verdict in found.items():
        for kind, entries in verdict.named.items():
            console.out.print(f"{name}: {kind}: {', '.join(entries)}", markup=False, highlight=False)
