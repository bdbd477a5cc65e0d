"""`engine replay`: dead letters or kept frames again, through a chosen bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from engine.cli import console
from engine.cli.lines import meant
from engine.config import Backend, Config, Runtime
from engine.contract import Precision
from engine.replay import Chosen, Replay
from engine.replay import replay as run


def replay(
    line: Annotated[str, typer.Option(help="The line whose frames are seen again.")],
    bundle: Annotated[Path, typer.Option(help="The bundle that sees them.")],
    into: Annotated[str | None, typer.Option("--as", help="The line that they go into; LINE-replay.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--type", help="Of the dead letters, those of this type; may be repeated.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="Kept frames, from this entry id on; - is the first.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Kept frames, up to this entry id; + is the last.")] = None,
    config: Annotated[Path | None, typer.Option(help="engine.toml: its server and its limits.")] = None,
    redis: Annotated[str | None, typer.Option(help="The server's URL.")] = None,
    prefix: Annotated[str | None, typer.Option(help="First part of the keys.")] = None,
    backend: Annotated[Backend, typer.Option(help="What runs the model.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Which executable of the bundle.")] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """All dead letters, or with --from or --to kept frames, again; their results are those of a line of their own."""
    chosen = Chosen(
        kept=first is not None or last is not None, types=frozenset(kind or ()), first=first or "-", last=last or "+"
    )
    settings = meant(config, [into or f"{line}-replay"], redis, prefix, os.path.abspath(bundle))
    found = run(_on(settings, Runtime(backend=backend, precision=precision, threads=threads)), line, chosen)
    if json:
        console.print_json(found.document())
    else:
        _print(found)


def _on(settings: Config, runtime: Runtime) -> Config:
    return msgspec.structs.replace(settings, runtime=runtime)


def _print(found: Replay) -> None:
    table = Table(title=f"{found.model} in line {found.line}", title_justify="left")
    for name in ("before", "after", "frames"):
        table.add_column(name, justify="right" if name == "frames" else "left")
    for (before, after), count in sorted(found.outcomes().items(), key=lambda item: -item[1]):
        table.add_row(before or "unknown", after or "unknown", str(count))
    console.out.print(table)
    if found.gone:
        console.out.print(f"{found.gone} frames had been trimmed before they ended and cannot be seen again")
