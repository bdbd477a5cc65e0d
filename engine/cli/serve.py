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
from engine.pipeline import Pipeline, lines
from engine.pipeline.reload import Reloader
from engine.streams.redis import connect

log = logging.getLogger("engine.serve")


def serve(
    config: Annotated[Path | None, typer.Option(help="engine.toml; flags override it.")] = None,
    line: Annotated[list[str] | None, typer.Option(metavar="NAME=BUNDLE", help="A line; may be repeated.")] = None,
    redis: Annotated[str | None, typer.Option(help="The server's URL, or `embedded`.")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, onnx, openvino, tensorrt, triton.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16, int8.")] = None,
    threads: Annotated[int | None, typer.Option(help="0: all cores.")] = None,
    cascade: Annotated[str | None, typer.Option(help="Of ensembles: off, auto, or a bound such as 0.002.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus and health; 0: off.")] = None,
    json: Annotated[bool, typer.Option("--json", help="At the end, one JSON document on stdout.")] = False,
) -> None:
    """Watch lines until SIGTERM or Ctrl-C, then finish what was begun and exit 0. SIGHUP looks for new bundles."""
    console.start_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while models load, nothing is held
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # and nothing older is there to be replaced
    overrides: dict[str, dict[str, Any]] = {
        "redis": {"url": redis},
        "runtime": {
            "backend": backend,
            "precision": precision,
            "threads": threads,
            "cascade": None if cascade is None else configs.cascade_setting(cascade),
        },
        "metrics": {"port": metrics_port},
    }
    settings = load(config, line or (), overrides)
    metrics = Metrics()
    with connect(settings) as streams:
        loaded = lines.load_all(settings)
        watches = [watch for one in loaded for watch in one.watches(settings)]
        pipeline = Pipeline(streams.source, streams.sink, watches, settings, metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: pipeline.stop())
        log.info("watching %s at %s", ", ".join(watch.line for watch in watches), streams.url)
        with Reloader(loaded, settings, pipeline) as reloader:
            signal.signal(signal.SIGHUP, lambda *_: reloader.look())
            pipeline.run()
    if json:
        console.print_json(_report(metrics, settings))


def _report(metrics: Metrics, settings: Config) -> dict[str, Any]:
    """What was done: frames that ended here, in all and of each line by outcome."""
    outcomes = metrics.outcomes()
    ends = {line.name: outcomes.get(line.name, {}) for line in settings.line}
    return {"frames": sum(n for line in ends.values() for how, n in line.items() if how != ELSEWHERE), "lines": ends}


def load(path: Path | None, lines: Sequence[str], overrides: dict[str, dict[str, Any]]) -> Config:
    """The configuration file, where there is one, with the flags put over it."""
    document = configs.read(path) if path is not None else {}
    for section, values in overrides.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given and isinstance(document.get(section, {}), dict):  # what is no table is refused below
            document[section] = document.get(section, {}) | given
    if lines:
        document["line"] = [_line(text) for text in lines]
    if "line" not in document:
        raise UsageError("engine serve: no line to watch; give --config FILE or --line NAME=BUNDLE")
    return configs.parse(document, where=path or Path("(flags)"))


def _line(text: str) -> dict[str, str]:
    name, equals, bundle = text.partition("=")
    if not equals or not bundle:
        raise UsageError(f"--line: expected NAME=BUNDLE, got {text!r}")
    return {"name": name, "bundle": os.path.abspath(bundle)}
