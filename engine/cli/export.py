"""`engine export`: a bundle's network in the form that another runtime takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.cli import console
from engine.cli.lazy import training
from engine.contract import Manifest, Precision
from engine.export import registry
from engine.export.base import ExportOptions, refuse_ensembles, refuse_others


def export(
    bundle: Annotated[Path, typer.Argument(help="The bundle to export.")],
    target: Annotated[str, typer.Option(help=f"One of {', '.join(registry.names())}.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    precision: Annotated[
        Precision, typer.Option(help="Which executable of the bundle; tensorrt makes fp16 and int8 itself.")
    ] = "fp32",
    data: Annotated[
        Path | None, typer.Option(help="tensorrt, fp16 and int8: the training pictures, if they were moved.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="LEAST,BEST,MOST", help="tensorrt: pictures at once; 1,8,32 if not given.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="tensorrt: a plan that later versions load too, but slower.")
    ] = False,
    device: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="triton: what the server runs on; cpu if not given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a bundle's network for another runtime, with a record of its tensors, thresholds and hashes."""
    console.start_logging()
    chosen, source = registry.get(target), bundles.read(bundle)
    refuse_ensembles(source)
    options = ExportOptions(
        bundle=source,
        out=out,
        recalibrate=_recalibrate,
        precision=precision,
        data=data,
        batch=batch,
        version_compatible=version_compatible,
        device=device,
    )
    refuse_others(options, chosen)
    document = chosen.export(options)
    if json:
        console.print_json(document)
    else:
        _print(document)


def _recalibrate(source: Bundle, precision: Precision, data: Path | None, folder: Path) -> Manifest:
    recalibrate, progress = (training(name, "export") for name in ("calibration.recalibrate", "progress"))
    order = recalibrate.Order(source, precision, data, threads=0)
    manifest: Manifest = recalibrate.recalibrate(order, folder, progress.on_stderr())
    return manifest


def _print(document: dict[str, Any]) -> None:
    for file in document["files"]:
        console.say(f"{document['out']}/{file['path']}  {file['bytes'] / 1e6:.1f} MB")
    console.say(f"next: {document['next']}")
