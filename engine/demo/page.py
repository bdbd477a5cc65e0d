"""The demo's report: what became of the stream, members beside their fusion, then what `engine eval` would write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.bundle import Bundle
from engine.config import Runtime
from engine.contract import Calibration, Scale
from engine.decide import verdict
from engine.demo.cells import Cameras
from engine.demo.verdicts import Streamed, count, raw_scores
from engine.serving.select import read_and_open
from engine.types import F64

if TYPE_CHECKING:
    from trainers.evaluation.evaluate import Evaluation
    from trainers.evaluation.report import Section, Table, Tiles

_BATCH = 8


def write(path: Path, summary: dict[str, Any], streamed: Streamed, cameras: Cameras, cells: Path, bundle: Path) -> None:
    """Write the self-contained page; for it, the unseen cells are judged once more, each by all members."""
    from trainers.dataset.elpv import LICENCE
    from trainers.dataset.good import read_dataset
    from trainers.evaluation.evaluate import Judge, evaluate
    from trainers.evaluation.report import Text, write_report
    from trainers.evaluation.summary import sections
    from trainers.progress import on_stderr

    loaded, predictor = read_and_open(bundle, Runtime(), _BATCH)
    judge = Judge(predictor.predict, loaded.sheet, loaded.calibration("fp32"))
    found = evaluate(judge, read_dataset(cells), on_stderr())
    changed = _changed(streamed, cameras, found, judge.calibration)
    page: list[Section] = [_stream(summary), _verdicts(streamed, changed), _members(streamed, found, loaded)]
    pictures = Text("Pictures", (f"Electroluminescence pictures of solar cells: {LICENCE} (Deitsch et al.).",))
    subtitle = "Trained on good cells only, then judged as a stream of cells it had never seen"
    write_report(path, "Solar cells, inspected live", subtitle, [*page, *sections(found, judge), pictures])


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


def _members(streamed: Streamed, found: Evaluation, bundle: Bundle) -> Table:
    """Each member alone, all of them on every cell, and the cascade as it was streamed."""
    from trainers.evaluation.report import Table

    ensemble = bundle.ensemble("fp32")
    rows = []
    for name, cost_ms in ((member.name, member.cost_ms) for member in ensemble.members):
        good, defective = (np.array([p.members[name] for p in judged]) for judged in (found.good, found.defective))
        scale = bundle.members[name].calibration("fp32").image
        rows.append(_row(f"{name} alone", good, defective, scale, cost_ms))
    good, defective = (np.array([p.raw_score for p in judged]) for judged in (found.good, found.defective))
    whole_ms = ensemble.first_ms + ensemble.others_ms
    rows.append(_row("all, fused", good, defective, ensemble.calibration.image, whole_ms))
    good, defective = (raw_scores(results) for results in (streamed.good, streamed.defective))
    escalated = float(np.mean([len(result.scores) > 1 for result in streamed.results]))
    mean_ms = ensemble.first_ms + escalated * ensemble.others_ms
    rows.append(_row("cascade, as streamed", good, defective, ensemble.calibration.image, mean_ms))
    intro = (
        "Each by a threshold of its own for the same share of good cells rejected. The cost is of one cell on this "
        "machine, as measured while the members were fused."
    )
    columns = ("detector", "image AUROC", "caught", "false alarms", "cost of a cell")
    return Table("Members and fusion", columns, rows, intro)


def _row(name: str, good: F64, defective: F64, scale: Scale, cost_ms: float) -> tuple[str, ...]:
    from trainers.evaluation.metrics import image_auroc

    caught, alarms = (float(np.mean(scores >= scale.threshold)) for scores in (defective, good))
    return name, f"{image_auroc(good, defective):.3f}", f"{caught:.1%}", f"{alarms:.1%}", f"{cost_ms:.1f} ms"


def _changed(streamed: Streamed, cameras: Cameras, found: Evaluation, calibration: Calibration) -> int:
    """Cells that the cascade and all members together decide differently."""
    full = {p.item.path: verdict(p.raw_score, p.rejected, calibration) for p in found.pictures}
    return sum(full[cameras.cells[result.id]] != result.decision for result in streamed.results)
