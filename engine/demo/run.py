"""The demo from end to end: train on good solar cells, serve a stream of unseen ones, report."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from engine import bundle as bundles
from engine.codec import DeadEntry
from engine.demo import page
from engine.demo.cells import Cameras, deal
from engine.demo.detector import train
from engine.demo.line import reader_of, serving, stream
from engine.demo.live import LiveTable
from engine.demo.verdicts import Streamed, count, raw_scores
from engine.streams.embedded import EmbeddedServer
from engine.streams.reader import Published

if TYPE_CHECKING:
    from trainers.base import TrainReport
    from trainers.ensemble.fuse import OpenMember

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
class Runs:
    """What became of the frames: at camera speed, and as fast as they go."""

    live: list[Published]
    burst: list[Published]


def run(out: Path, open_member: OpenMember, console: Console) -> Summary:
    """Run the demo; the bundle, the report and the server's log stay in `out`."""
    from trainers.dataset import elpv
    from trainers.progress import on_stderr

    logging.getLogger("engine").setLevel(logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="engine-demo-") as name:
        scratch, bundle = Path(name), out / "bundle"
        cells = elpv.lay_out(scratch / "cells", "mono")
        console.print(f"[bold]1. Train[/bold] an ensemble on good solar cells only ({elpv.LICENCE})")
        trained = train(cells / "train" / "good", scratch / "members", bundle, open_member, on_stderr())
        members = tuple(member.name for member in bundles.read(bundle).ensemble("fp32").members)
        console.print(f"\n[bold]2. Serve[/bold] unseen cells from {CAMERAS} cameras, embedded server, no GPU")
        cameras = deal(cells / "test", scratch / "cameras", CAMERAS)
        runs = _stream(cameras, members, out, console)
        streamed = Streamed.of(runs.live, cameras, members)
        summary = _summarise(streamed, runs, 2 * cameras.frames, trained, out)
        console.print("\n[bold]3. Report[/bold]")
        page.write(summary.report, summary.document(), streamed, cameras, cells, bundle)
    _print(summary, streamed, console)
    return summary


def _stream(cameras: Cameras, members: Sequence[str], out: Path, console: Console) -> Runs:
    with EmbeddedServer() as server, server.client() as client:
        reader = reader_of(client)
        with serving(out / "bundle", server.url, out / "serve.log"):
            with LiveTable(console, cameras.frames, members) as table:
                live = stream(cameras, client, reader, server.url, LIVE_FPS, table.update)
            console.print("the same frames again, as fast as they go")
            burst = stream(cameras, client, reader, server.url, 0, lambda _: None)
    return Runs(live, burst)


def _summarise(streamed: Streamed, runs: Runs, frames: int, trained: TrainReport, out: Path) -> Summary:
    from trainers.evaluation.metrics import image_auroc

    published = [*runs.live, *runs.burst]
    dead = sum(isinstance(item.end, DeadEntry) for item in published)
    auroc = image_auroc(raw_scores(streamed.good), raw_scores(streamed.defective))
    total_ms = [result.timing_ms["total"] for result in streamed.results]
    return Summary(
        frames=frames,
        results=len(published) - dead,
        dead=dead,
        image_auroc=float(auroc if auroc is not None else np.nan),
        false_alarm_rate=float(np.mean([result.pred_label for result in streamed.good])),
        target_fpr=trained.calibration["fp32"].image_estimate.target_fpr,
        throughput_fps=_rate(runs.burst),
        p50_ms=float(np.percentile(total_ms, 50)),
        p99_ms=float(np.percentile(total_ms, 99)),
        train_s=trained.train_s,
        report=(out / "index.html").resolve(),
    )


def _rate(published: Sequence[Published]) -> float:
    """Frames/s in the middle of a saturated run."""
    times_ms = np.sort([item.published_ms for item in published])
    middle = times_ms[int(_MARGIN * len(times_ms)) : int((1 - _MARGIN) * len(times_ms))]
    return float(1e3 * (len(middle) - 1) / max(middle[-1] - middle[0], 1))


def _print(summary: Summary, streamed: Streamed, console: Console) -> None:
    lost = summary.frames - summary.results - summary.dead
    found = count(streamed.results, len(streamed.members))
    first = streamed.members[0]
    console.print(
        f"\n{summary.frames} frames in, {summary.results} results, {summary.dead} dead letters, {lost} lost\n"
        f"image AUROC {summary.image_auroc:.3f}; false alarms {summary.false_alarm_rate:.1%} "
        f"(target {summary.target_fpr:.1%})\n"
        f"of {found.frames} live frames {found.decided['good']} good, {found.decided['review']} to review, "
        f"{found.decided['reject']} rejected; {first} alone settled {found.alone}, "
        f"all of {', '.join(streamed.members)} saw the others\n"
        f"{summary.throughput_fps:.0f} frames/s sustained; capture to result p50 {summary.p50_ms:.0f} ms, "
        f"p99 {summary.p99_ms:.0f} ms at {CAMERAS * LIVE_FPS:.0f} frames/s\n"
        f"trained in {summary.train_s:.0f} s\n"
        f"report: file://{summary.report}",
        highlight=False,
    )
