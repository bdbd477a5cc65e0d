"""`engine audit`: frames in against results and dead letters out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from engine.audit import Verdict
from engine.audit import audit as look
from engine.cli import console
from engine.cli.lines import meant
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
    settings = meant(config, line or (), redis, prefix)
    lines = [each.name for each in settings.line]
    if journal is not None and len(lines) != 1:
        raise UsageError(f"--journal: expected one line, got {len(lines)}; name it with --line")
    link = Link(settings.redis, read_password(settings.redis), "engine-audit")
    try:
        found = {name: look(link, line_keys(settings.redis.prefix, name), journal) for name in lines}
    finally:
        link.close()
    holds = all(verdict.holds for verdict in found.values())
    if json:
        console.print_json({"holds": holds, "lines": {name: verdict.document() for name, verdict in found.items()}})
    else:
        _print(found)
    return 0 if holds else 1


def _print(found: dict[str, Verdict]) -> None:
    table = Table()
    for name in ("line", "by", *_COLUMNS):
        table.add_column(name, justify="left" if name in ("line", "by") else "right")
    for name, verdict in found.items():
        table.add_row(name, verdict.how, *(str(getattr(verdict, column)) for column in _COLUMNS))
    console.out.print(table)
    for name, verdict in found.items():
        for kind, entries in verdict.named.items():
            console.say(f"{name}: {kind}: {', '.join(entries)}")
