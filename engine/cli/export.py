"""`engine export`: a bundle's network in the form that another runtime takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine import bundle as bundles
from engine.cli import console
from engine.contract import Precision
from engine.export import registry
from engine.export.base import ExportOptions


def export(
    bundle: Annotated[Path, typer.Argument(help="The bundle to export.")],
    target: Annotated[str, typer.Option(help=f"One of {', '.join(registry.names())}.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    precision: Annotated[Precision, typer.Option(help="Which executable of the bundle.")] = "fp32",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a bundle's network for another runtime, with a record of its tensors, thresholds and hashes."""
    console.start_logging()
    chosen = registry.get(target)
    document = chosen.export(ExportOptions(bundles.read(bundle), out, precision))
    if json:
        console.print_json(document)
    else:
        _print(document)


def _print(document: dict[str, Any]) -> None:
    for file in document["files"]:
        line = f"{document['out']}/{file['path']}  {file['bytes'] / 1e6:.1f} MB"
        console.out.print(line, markup=False, highlight=False)
    console.out.print(f"next: {document['next']}", markup=False, highlight=False)
