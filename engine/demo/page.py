"""The demo's report: the stream's numbers, then the evaluation that `engine eval` would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config import Runtime
from engine.serving.select import read_and_open

_BATCH = 8


def write(path: Path, summary: dict[str, Any], cells: Path, bundle: Path) -> None:
    """Write the self-contained page; the unseen cells are judged once more for it."""
    from trainers.dataset.elpv import LICENCE
    from trainers.dataset.good import read_dataset
    from trainers.evaluation.evaluate import Judge, evaluate
    from trainers.evaluation.report import Text, write_report
    from trainers.evaluation.summary import sections
    from trainers.progress import on_stderr

    loaded, predictor = read_and_open(bundle, Runtime(), _BATCH)
    judge = Judge(predictor.predict, loaded.sheet, loaded.calibration("fp32"))
    found = evaluate(judge, read_dataset(cells), on_stderr())
    pictures = Text("Pictures", (f"Electroluminescence pictures of solar cells: {LICENCE} (Deitsch et al.).",))
    page = [_stream(summary), *sections(found, judge), pictures]
    subtitle = "Trained on good cells only, then judged as a stream of cells it had never seen"
    write_report(path, "Solar cells, inspected live", subtitle, page)


def _stream(summary: dict[str, Any]) -> Any:
    from trainers.evaluation.report import Tile, Tiles

    lost = summary["frames"] - summary["results"] - summary["dead"]
    latency = summary["latency_ms"]
    return Tiles(
        "The stream",
        [
            Tile("Frames", str(summary["frames"]), f"{summary['results']} results, {summary['dead']} dead letters"),
            Tile("Lost", str(lost), "Every frame ends as one result or one dead letter.", "bad" if lost else "good"),
            Tile("Sustained", f"{summary['throughput_fps']:.0f} /s", "Frames per second on this machine, no GPU."),
            Tile(
                "Latency",
                f"{latency['p50']:.0f} ms",
                f"Capture to result, median; 99 % within {latency['p99']:.0f} ms.",
            ),
            Tile("Training", f"{summary['train_s']:.0f} s", "From good pictures to a calibrated detector."),
        ],
    )
