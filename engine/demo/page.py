"""The demo's report: what became of the stream, then what `engine eval` would write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import Runtime
from engine.contract import Calibration
from engine.decide import verdict
from engine.demo.cells import Cameras
from engine.demo.verdicts import Streamed, count
from engine.serving.select import open_cascade, read_and_open

if TYPE_CHECKING:
    from trainers.evaluation.evaluate import Evaluation
    from trainers.evaluation.report import Section, Table, Tiles

_BATCH = 8


def write(path: Path, summary: dict[str, Any], streamed: Streamed, cameras: Cameras, cells: Path, bundle: Path) -> None:
    """Write the self-contained page; for it, the unseen cells are judged once more, each by all members."""
    from trainers.dataset.elpv import LICENCE
    from trainers.dataset.good import read_dataset
    from trainers.evaluation.evaluate import Judge
    from trainers.evaluation.jury import Jury, compare
    from trainers.evaluation.report import Text, write_report
    from trainers.evaluation.summary import sections
    from trainers.progress import on_stderr

    runtime = Runtime()
    loaded, predictor = read_and_open(bundle, runtime, _BATCH)
    calibration = loaded.calibration("fp32")
    judge = Judge(predictor.predict, loaded.sheet, calibration)
    jury = Jury.of(judge, loaded, "fp32", open_cascade(loaded, predictor, runtime, calibration))
    comparison = compare(jury, read_dataset(cells), on_stderr())
    changed = _changed(streamed, cameras, comparison.fused, calibration)
    page: list[Section] = [
        _stream(summary),
        _verdicts(streamed, changed),
        *sections(comparison.fused, judge, comparison),
    ]
    pictures = Text("Pictures", (f"Electroluminescence pictures of solar cells: {LICENCE} (Deitsch et al.).",))
    subtitle = "Trained on good cells only, then judged as a stream of cells it had never seen"
    write_report(path, "Solar cells, inspected live", subtitle, [*page, pictures])


def _stream(summary: dict[str, Any]) -> Tiles:
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
            Tile("Training", f"{summary['train_s']:.0f} s", "From good pictures to a calibrated ensemble."),
        ],
    )


def _verdicts(streamed: Streamed, changed: int) -> Table:
    """Decisions of the live run by the truth, and what the cascade did."""
    from trainers.evaluation.report import Table

    first, *others = streamed.members
    rows = []
    for name, results in (("good", streamed.good), ("defective", streamed.defective)):
        found = count(results, len(streamed.members))
        rows.append((name, *map(str, (found.frames, *found.decided.values(), found.alone))))
    intro = (
        f"{first} looks at every cell first. What it finds clearly good is settled; only the others go on to "
        f"{' and '.join(others)}. Compared with asking all of them about every cell, "
        f"{changed or 'none'} of {len(streamed.results)} decisions came out otherwise."
    )
    columns = ("cells", "frames", "good", "to review", "rejected", f"settled by {first} alone")
    return Table("Decisions, and what the cascade did", columns, rows, intro)


def _changed(streamed: Streamed, cameras: Cameras, found: Evaluation, calibration: Calibration) -> int:
    """Cells that the cascade and all members together decide differently."""
    full = {p.item.path: verdict(p.raw_score, p.rejected, calibration) for p in found.pictures}
    return sum(full[cameras.cells[result.id]] != result.decision for result in streamed.results)
