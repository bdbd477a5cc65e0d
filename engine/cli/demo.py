"""`engine demo`: the main job on real pictures, with nothing to set up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import console
from engine.cli.fuse import opener
from engine.cli.lazy import training


def demo(
    out: Annotated[Path, typer.Option(help="Where the bundle and the report go.")] = Path("demo-report"),
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train an ensemble on good solar cells, serve a live stream of unseen ones, and write a report to look at."""
    training("registry", "demo")
    from engine.demo.run import run

    summary = run(out, opener(threads=0), console.err if json else console.out)
    if json:
        console.print_json(summary.document())
