"""The report as a picture: latency distribution, and frames/s by batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.bench.report import BenchReport
from engine.errors import MissingExtraError


def plot(report: BenchReport, path: Path) -> None:
    """Write a picture of the report; the format follows the file's ending.

    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the plot of a benchmark", "train") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in report.open_loop:
        left.plot(run.quantiles_ms, np.arange(101), label=f"{run.cameras} cameras, {run.offered_fps:.0f} frames/s")
    left.set(xlabel="scheduled capture to published result [ms]", ylabel="frames [%]", ylim=(0, 100), xlim=(0, None))
    left.legend()
    for (backend, precision), points in _by_executable(report).items():
        right.plot(*zip(*points, strict=True), marker="o", label=f"{backend} {precision}, alone")
    summary = report.to_dict()
    right.axhline(float(str(summary["throughput_fps"])), color="black", linestyle="--", label="whole stream")
    right.set(xlabel="batch size", ylabel="frames/s", ylim=(0, None))
    right.legend()
    figure.suptitle(f"{report.model} on {report.environment['cpu']}, {report.environment['cores']} cores")
    figure.savefig(path)


def _by_executable(report: BenchReport) -> dict[tuple[str, str], list[tuple[int, float]]]:
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for run in report.offline:
        points.setdefault((run.setup.backend, run.setup.precision), []).append((run.setup.batch, run.fps))
    return points
