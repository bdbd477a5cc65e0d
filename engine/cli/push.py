"""`engine push`: a camera's side of the line."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from engine.cli import console
from engine.config import Redis
from engine.errors import UsageError
from engine.push import MAX_BACKLOG, PushOptions, PushReport
from engine.push import push as run_push
from engine.types import Codec


def push(
    source: Annotated[str, typer.Argument(help="A folder, a video file, an rtsp:// or http:// URL, a webcam index.")],
    line: Annotated[str, typer.Option(help="The line's name.")],
    camera: Annotated[str, typer.Option(help="The camera's name.")],
    redis: Annotated[str, typer.Option(help="The server.")] = Redis().url,
    prefix: Annotated[str, typer.Option(help="First part of the keys.")] = Redis().prefix,
    fps: Annotated[float, typer.Option(min=0, help="Frames per second; 0: as fast as the line takes them.")] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    codec: Annotated[Codec | None, typer.Option(help="Without it, JPEG and PNG files are sent as they are.")] = None,
    frames: Annotated[int, typer.Option(min=0, help="Stop after this many; 0: all.")] = 0,
    max_backlog: Annotated[
        int, typer.Option(min=0, help="Wait while this many frames are unread; 0: never wait.")
    ] = MAX_BACKLOG,
    journal: Annotated[Path | None, typer.Option(help="Write a line per accepted frame, for `engine audit`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Push pictures into a line; nothing that was accepted is lost or doubled."""
    console.start_logging()
    options = PushOptions(
        source=source,
        line=line,
        camera=camera,
        redis=Redis(url=redis, prefix=prefix),
        fps=fps,
        loop=loop,
        codec=codec,
        journal=journal,
        frames=frames,
        max_backlog=max_backlog,
    )
    report = _push_shown(options)
    if report.unreadable and not report.frames:
        raise UsageError(f"{source}: none of its {report.unreadable} pictures can be read; the log above says why")
    if json:
        console.print_json(asdict(report))
    else:
        console.out.print(_sentence(report))


def _push_shown(options: PushOptions) -> PushReport:
    """Push until the source ends or a signal comes, with a running line on a terminal."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console.err, transient=True)
    with bar if console.err.is_terminal else nullcontext():
        task = bar.add_task("pushing")
        return run_push(options, stop, lambda report: bar.update(task, description=_sentence(report)))


def _sentence(report: PushReport) -> str:
    rate = report.frames / report.seconds if report.seconds else 0.0
    parts = [f"{report.frames} frames in {report.seconds:.1f} s ({rate:.0f} frames/s)"]
    if report.backlog_wait_s >= 1:
        parts.append(f"waited {report.backlog_wait_s:.0f} s for the line")
    if report.unreadable:
        parts.append(f"{report.unreadable} unreadable files left out")
    if report.thinned:
        parts.append(f"{report.thinned} frames thinned to the rate")
    if report.interruptions:
        parts.append(f"server away {report.interruptions} times")
    return ", ".join(parts)
