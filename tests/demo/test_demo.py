"""The demo's parts on small pictures: what is dealt to cameras, trained, counted, shown and reported."""

import io
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from engine import bundle as bundles
from engine.api import load
from engine.cli.fuse import opener
from engine.codec import DeadEntry
from engine.demo import page
from engine.demo.cells import deal
from engine.demo.detector import TARGET_FPR, train
from engine.demo.live import LiveTable
from engine.demo.verdicts import Streamed, count
from engine.streams.reader import Published
from engine.types import DeadLetter, Result
from trainers.progress import RecordedProgress


def result(name: str, decision: str | None = "good", scores: tuple[str, ...] = ("fyd",), **changes: object) -> Result:
    values: dict[str, object] = {
        "frame": "1-1",
        "id": name,
        "camera": "camera1",
        "ts_ns": 5,
        "tags": {},
        "status": "ok" if decision else "expired",
        "pred_score": {"good": 0.1, "review": 0.4, "reject": 0.9}.get(decision or ""),
        "pred_label": None if decision is None else decision == "reject",
        "decision": decision,
        "raw_score": None if decision is None else 1.0,
        "scores": dict.fromkeys(scores, 0.25) if decision else {},
        "regions": (),
        "model": "demo@1",
        "timing_ms": {"total": 7.0},
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def dead() -> DeadEntry:
    return DeadEntry("1-2", "cells", DeadLetter("decode", "cut off", "demo@1", 1, "consumer", 5), b"", b"")


def put(path: Path, seed: int, defect: bool = False) -> None:
    picture = np.random.default_rng(seed).normal(120, 12, (64, 64)).clip(0, 255).astype(np.uint8)
    picture[::16] = 40
    if defect:
        picture[20:44, 20:44] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """105 good cells to train on, of which a fifth is held out, and twelve to judge."""
    root = tmp_path_factory.mktemp("cells")
    for i in range(105):
        put(root / f"train/good/{i:03}.png", i)
    for i in range(6):
        put(root / f"test/good/g{i}.png", 200 + i)
        put(root / f"test/defective/d{i}.png", 300 + i, defect=True)
    return root


def test_every_cell_is_dealt_to_one_camera_and_known_by_its_frame(cells, tmp_path):
    cameras = deal(cells / "test", tmp_path / "cameras", 5)
    dealt = sorted(path.name for folder in cameras.folders.values() for path in folder.iterdir())
    assert dealt == sorted(cameras.cells)
    assert [len(list(folder.iterdir())) for folder in cameras.folders.values()] == [3, 3, 2, 2, 2]
    assert sorted(path.name for path in cameras.cells.values()) == [f"{kind}{i}.png" for kind in "dg" for i in range(6)]
    for frame, cell in cameras.cells.items():
        assert cameras.defective(frame) == cell.name.startswith("d")


def test_decisions_are_counted_with_those_that_the_first_member_settled_alone():
    both = ("fyd", "droc")
    results = [result("a"), result("b", scores=both), result("c", "review", both), result("d", "reject", both)]
    found = count([*results, result("e", None)], 2)
    assert (found.frames, found.decided, found.alone) == (4, {"good": 2, "review": 1, "reject": 1}, 1)


def test_the_live_table_fits_a_terminal_of_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    ends = [result("a"), result("b", "review", ("fyd", "droc")), result("c", "reject", ("fyd", "droc"))]
    with LiveTable(console, 5, ("fyd", "droc")) as table:
        table.update([Published(1, end) for end in (*ends, dead())])
    title, *lines = (" ".join(line.split()) for line in console.export_text().splitlines())
    assert title == "4 of 5 frames, 1 dead letters"
    assert "camera frames review reject fyd alone p50 ms last: fused fyd droc" in lines
    assert "camera1 3 1 1 1 7.0 reject 0.900 0.250 0.250" in lines


@pytest.mark.slow
def test_the_detector_is_an_ensemble_and_the_report_shows_its_members_beside_their_fusion(cells, tmp_path):
    out = tmp_path / "bundle"
    report = train(cells / "train" / "good", tmp_path / "members", out, opener(threads=1), RecordedProgress())
    calibration = report.calibration["fp32"]
    assert (report.method, calibration.image_estimate.target_fpr) == ("ensemble", TARGET_FPR)
    assert calibration.review is not None
    assert calibration.review < calibration.image.threshold
    members = tuple(member.name for member in bundles.read(out).ensemble("fp32").members)
    assert set(members) == {"fyd", "droc"}

    cameras = deal(cells / "test", tmp_path / "cameras", 2)
    frames = list(cameras.cells)
    judged = load(out).predict([cameras.cells[frame] for frame in frames])
    results = [replace(one, id=frame) for frame, one in zip(frames, judged, strict=True)]
    assert all(set(one.scores) == set(members) for one in results)
    good = next(i for i, frame in enumerate(frames) if not cameras.defective(frame))
    results[good] = replace(results[good], scores={members[0]: results[good].scores[members[0]]})
    streamed = Streamed.of([Published(1, one) for one in results] + [Published(2, dead())], cameras, members)
    summary = {
        "frames": 24,
        "results": 24,
        "dead": 0,
        "throughput_fps": 100.0,
        "latency_ms": {"p50": 20.0, "p99": 40.0},
        "train_s": 3.0,
    }
    page.write(tmp_path / "index.html", summary, streamed, cameras, cells, out)
    rows = re.findall(r"<tr>(<td>.*?)</tr>", (tmp_path / "index.html").read_text())
    words = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    table = {first: others for first, *others in reversed(words)}  # of rows of one name the first
    truth = [cameras.defective(frame) for frame in frames]
    caught = sum(bool(one.pred_label) for one, bad in zip(results, truth, strict=True) if bad)
    assert (table["good"][0], table["good"][4], table["defective"][3]) == ("6", "1", str(caught))
    for name in members:
        expected = roc_auc_score(truth, [one.scores.get(name, 0) for one in judged])
        assert table[f"{name} alone"][0].split(" <")[0] == f"{expected:.3f}"
    expected = roc_auc_score(truth, [one.raw_score for one in judged])
    assert table["all, fused"][0].split(" <")[0] == table["cascade"][0].split(" <")[0] == f"{expected:.3f}"
    assert "What the cascade changes" in (tmp_path / "index.html").read_text()
    assert "none of 12 decisions came out otherwise" in (tmp_path / "index.html").read_text()
