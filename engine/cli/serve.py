"""`engine serve`: the stream consumer."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import config as configs
from engine.cli import console
from engine.config import Config
from engine.errors import UsageError
from engine.metrics import ELSEWHERE, Metrics
from engine.pipeline import Pipeline, Watch
from engine.serving.select import choose_precision, read_and_open
from engine.streams.redis import connect

log = logging.getLogger("engine.serve")


def serve(
    config: Annotated[Path | None, typer.Option(help="engine.toml; flags override it.")] = None,
    line: Annotated[list[str] | None, typer.Option(metavar="NAME=BUNDLE", help="A line; may be repeated.")] = None,
    redis: Annotated[str | None, typer.Option(help="The server's URL, or `embedded`.")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, onnx, openvino, tensorrt, triton.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16, int8.")] = None,
    threads: Annotated[int | None, typer.Option(help="0: all cores.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus and health; 0: off.")] = None,
    json: Annotated[bool, typer.Option("--json", help="At the end, one JSON document on stdout.")] = False,
) -> None:
    """Watch lines until SIGTERM or Ctrl-C, then finish what was begun and exit 0."""
    console.start_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while models load, nothing is held
    overrides: dict[str, dict[str, Any]] = {
        "redis": {"url": redis},
        "runtime": {"backend": backend, "precision": precision, "threads": threads},
        "metrics": {"port": metrics_port},
    }
    settings = load(config, line or (), overrides)
    watches = open_lines(settings)
    metrics = Metrics()
    with connect(settings) as streams:
        pipeline = Pipeline(streams.source, streams.sink, watches, settings, metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: pipeline.stop())
        log.info("watching %s at %s", ", ".join(watch.line for watch in watches), streams.url)
        pipeline.run()
    for predictor in {id(watch.predictor): watch.predictor for watch in watches}.values():  # lines may share one
        predictor.close()
    if json:
        console.print_json(_report(metrics, watches))


def _report(metrics: Metrics, watches: Sequence[Watch]) -> dict[str, Any]:
    """What was done: frames that ended here, in all and of each line by outcome."""
    outcomes = metrics.outcomes()
    lines = {watch.line: outcomes.get(watch.line, {}) for watch in watches}
    return {"frames": sum(n for line in lines.values() for how, n in line.items() if how != ELSEWHERE), "lines": lines}


def load(path: Path | None, lines: Sequence[str], overrides: dict[str, dict[str, Any]]) -> Config:
    """The configuration file, where there is one, with the flags put over it."""
    document = configs.read(path) if path is not None else {}
    for section, values in overrides.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            document[section] = document.get(section, {}) | given
    if lines:
        document["line"] = [_line(text) for text in lines]
    if "line" not in document:
        raise UsageError("engine serve: no line to watch; give --config FILE or --line NAME=BUNDLE")
    return configs.parse(document, where=path or Path("(flags)"))


def open_lines(settings: Config) -> list[Watch]:
    """Load every line's bundle; lines with the same bundle share its model and its batches."""
    opened: dict[str, Any] = {}
    watches = []
    for line in settings.line:
        place = os.path.realpath(line.bundle)
        if place not in opened:
            opened[place] = read_and_open(line.bundle, settings.runtime, settings.batch.max_size, settings.triton)
        bundle, predictor = opened[place]
        manifest = bundle.manifest
        log.info("%s: %s on %s %s", line.name, manifest.model, predictor.backend, predictor.precision)
        watches.append(
            Watch(
                line=line.name,
                model=manifest.model,
                method=manifest.method,
                predictor=predictor,
                calibration=bundle.executable(choose_precision(settings.runtime)).calibration,
                height=manifest.input.height,
                width=manifest.input.width,
            )
        )
    return watches


def _line(text: str) -> dict[str, str]:
    name, equals, bundle = text.partition("=")
    if not equals or not bundle:
        raise UsageError(f"--line: expected NAME=BUNDLE, got {text!r}")
    return {"name": name, "bundle": os.path.abspath(bundle)}
