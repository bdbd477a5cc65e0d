"""`engine bench`: throughput and latency of a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.bench.run import BenchOptions
from engine.bench.run import bench as run_bench
from engine.cli import console
from engine.config import Backend, Runtime, cascade_setting
from engine.contract import Precision


def bench(
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure.")],
    data: Annotated[
        Path | None, typer.Option(help="Pictures to stream; without it, the bundle's training set.")
    ] = None,
    redis: Annotated[str, typer.Option(help="The server's URL, or `embedded`.")] = "embedded",
    backend: Annotated[Backend, typer.Option(help="What runs the model.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Which executable of the bundle.")] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    cascade: Annotated[str, typer.Option(help="Of ensembles: off, auto, or a bound such as 0.002.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Frames in a batch.")] = 8,
    cameras: Annotated[int, typer.Option(min=1, help="Cameras of the open-loop run.")] = 4,
    fps: Annotated[float, typer.Option(min=0, help="Frames/s of each; 0: a share of what is sustained.")] = 0.0,
    share: Annotated[float, typer.Option(help="Share of the sustained rate for the open-loop run.")] = 0.8,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the open-loop run.")] = 15.0,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of saturated stream and backend alone.")] = 5,
    offline: Annotated[bool, typer.Option(help="Also every backend, precision and batch size alone.")] = True,
    plot: Annotated[Path | None, typer.Option(help="Write a picture: .png, .svg, .pdf.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Offline and streaming: frames/s, p50/p95/p99 from capture to publish, CPU, memory, and the engine's own cost."""
    console.start_logging()
    setting = cascade_setting(cascade)
    runtime = Runtime(backend=backend, precision=precision, threads=threads, cascade=setting)
    options = BenchOptions(
        bundle=bundle,
        data=data,
        url=redis,
        runtime=runtime,
        batch=batch,
        cameras=cameras,
        fps=fps,
        share=share,
        seconds=seconds,
        rounds=rounds,
        offline_batches=(1, 8, 32) if offline else (),
    )
    report = run_bench(options, console.err.print)
    if plot is not None:
        from engine.bench.plot import plot as draw

        draw(report, plot)
    if json:
        console.print_json(report.to_dict())
    else:
        _print(report.to_dict())


def _print(document: dict[str, Any]) -> None:
    latency = document["latency_ms"]
    table = Table(title=f"{document['model']}, {document['backend']} {document['precision']}", title_justify="left")
    for name in ("what", "value"):
        table.add_column(name)
    table.add_row("streaming, sustained", f"{document['throughput_fps']:.1f} frames/s")
    table.add_row("backend alone", f"{document['backend_fps']:.1f} frames/s")
    table.add_row("streaming / backend", f"{document['ratio']:.3f}")
    table.add_row(
        "capture to publish", f"p50 {latency['p50']:.1f}  p95 {latency['p95']:.1f}  p99 {latency['p99']:.1f} ms"
    )
    table.add_row("engine process", f"{document['cpu_percent']:.0f} % CPU, {document['rss_mb']:.0f} MB")
    for what, value in document["ensemble"].items():
        table.add_row(f"ensemble: {what.replace('_', ' ')}", str(value))
    for run in document["runs"]:
        if run["kind"] == "offline":
            what = f"alone: {run['backend']} {run['precision']} batch {run['batch']}"
            table.add_row(what, f"{run['fps']:.1f} frames/s")
    console.out.print(table)
