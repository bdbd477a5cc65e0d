"""The demo from end to end: train on good solar cells, serve a stream of unseen ones, report."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from engine.codec import DeadEntry
from engine.demo import page
from engine.demo.cells import Cameras, deal
from engine.demo.line import reader_of, serving, stream
from engine.demo.live import LiveTable
from engine.streams.embedded import EmbeddedServer
from engine.streams.reader import Published
from engine.types import Result

CAMERAS = 4
LIVE_FPS = 8.0  # of each camera
_MARGIN = 0.1  # of a saturated run, left out at either end


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo found; `document` has the names that scripts rely on."""

    frames: int
    results: int
    dead: int
    image_auroc: float
    false_alarm_rate: float
    target_fpr: float
    throughput_fps: float
    p50_ms: float
    p99_ms: float
    train_s: float
    report: Path

    def document(self) -> dict[str, Any]:
        """The JSON of `engine demo --json`."""
        return {
            "frames": self.frames,
            "results": self.results,
            "dead": self.dead,
            "image_AUROC": self.image_auroc,
            "false_alarm_rate": self.false_alarm_rate,
            "target_fpr": self.target_fpr,
            "throughput_fps": round(self.throughput_fps, 1),
            "latency_ms": {"p50": round(self.p50_ms, 2), "p99": round(self.p99_ms, 2)},
            "train_s": round(self.train_s, 1),
            "report": str(self.report),
        }


@dataclass(frozen=True, slots=True)
class Streamed:
    """What became of the frames of both runs: at camera speed, and as fast as they go."""

    live: list[Published]
    burst: list[Published]


def run(out: Path, console: Console) -> Summary:
    """Run the demo; the bundle, the report and the server's log stay in `out`."""
    from trainers import registry
    from trainers.base import TrainOptions
    from trainers.dataset import elpv
    from trainers.progress import on_stderr

    logging.getLogger("engine").setLevel(logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="engine-demo-") as scratch:
        cells = elpv.lay_out(Path(scratch) / "cells", "mono")
        console.print(f"[bold]1. Train[/bold] on good solar cells only ({elpv.LICENCE})")
        options = TrainOptions(data=cells, out=out / "bundle")
        trained = registry.get("fyd").train(options, on_stderr())
        console.print(f"\n[bold]2. Serve[/bold] unseen cells from {CAMERAS} cameras, embedded server, no GPU")
        cameras = deal(cells / "test", Path(scratch) / "cameras", CAMERAS)
        streamed = _stream(cameras, out, console)
        summary = _summarise(cameras, streamed, trained, out)
        console.print("\n[bold]3. Report[/bold]")
        page.write(summary.report, summary.document(), cells, out / "bundle")
    _print(summary, console)
    return summary


def _stream(cameras: Cameras, out: Path, console: Console) -> Streamed:
    with EmbeddedServer() as server, server.client() as client:
        reader = reader_of(client)
        with serving(out / "bundle", server.url, out / "serve.log"):
            with LiveTable(console, cameras.frames) as table:
                live = stream(cameras, client, reader, server.url, LIVE_FPS, table.update)
            console.print("the same frames again, as fast as they go")
            burst = stream(cameras, client, reader, server.url, 0, lambda _: None)
    return Streamed(live, burst)


def _summarise(cameras: Cameras, streamed: Streamed, trained: Any, out: Path) -> Summary:
    from trainers.evaluation.metrics import image_auroc

    results = _results(streamed.live)
    good = [r for r in results if not cameras.defective[r.id]]
    defective = [r for r in results if cameras.defective[r.id]]
    auroc = image_auroc(_scores(good), _scores(defective))
    total_ms = [r.timing_ms["total"] for r in results]
    everything = [*streamed.live, *streamed.burst]
    report = (out / "index.html").resolve()
    return Summary(
        frames=2 * cameras.frames,
        results=len(_results(everything)),
        dead=sum(isinstance(item.end, DeadEntry) for item in everything),
        image_auroc=float(auroc if auroc is not None else np.nan),
        false_alarm_rate=float(np.mean([r.pred_label for r in good])),
        target_fpr=trained.calibration["fp32"].image_estimate.target_fpr,
        throughput_fps=_rate(streamed.burst),
        p50_ms=float(np.percentile(total_ms, 50)),
        p99_ms=float(np.percentile(total_ms, 99)),
        train_s=trained.train_s,
        report=report,
    )


def _results(published: Sequence[Published]) -> list[Result]:
    return [item.end for item in published if isinstance(item.end, Result)]


def _scores(results: Sequence[Result]) -> np.ndarray:
    return np.array([r.raw_score for r in results], np.float64)


def _rate(published: Sequence[Published]) -> float:
    """Frames/s in the middle of a saturated run."""
    times_ms = np.sort([item.published_ms for item in published])
    middle = times_ms[int(_MARGIN * len(times_ms)) : int((1 - _MARGIN) * len(times_ms))]
    return float(1e3 * (len(middle) - 1) / max(middle[-1] - middle[0], 1))


def _print(summary: Summary, console: Console) -> None:
    lost = summary.frames - summary.results - summary.dead
    console.print(
        f"\n{summary.frames} frames in, {summary.results} results, {summary.dead} dead letters, {lost} lost\n"
        f"image AUROC {summary.image_auroc:.3f}; false alarms {summary.false_alarm_rate:.1%} "
        f"(target {summary.target_fpr:.1%})\n"
        f"{summary.throughput_fps:.0f} frames/s sustained; capture to result p50 {summary.p50_ms:.0f} ms, "
        f"p99 {summary.p99_ms:.0f} ms at {CAMERAS * LIVE_FPS:.0f} frames/s\n"
        f"trained in {summary.train_s:.0f} s\n"
        f"report: file://{summary.report}",
        highlight=False,
    )
