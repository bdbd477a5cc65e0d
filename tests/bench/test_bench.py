"""The benchmark's arithmetic against references, its processes, and one small run of everything."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pytest

from engine.bench.environment import stamp
from engine.bench.load import Cameras, due_times
from engine.bench.pictures import prepare
from engine.bench.plot import plot
from engine.bench.report import (
    BenchReport,
    Latency,
    OfflineRun,
    OpenLoopRun,
    SaturationRun,
    Setup,
    Usage,
    latency,
    quantiles,
    rate,
)
from engine.bench.run import BenchOptions, bench
from engine.bench.usage import Meter
from engine.bench.worker import Worker, WorkerError
from engine.codec import decode_frame
from engine.config import Runtime
from engine.errors import DataError, UsageError

ECHO = """
from engine.bench.worker import serve_requests
serve_requests(lambda request: {"twice": 2 * request["x"]})
"""


def test_percentiles_interpolate_between_order_statistics():
    samples = [float(x) for x in np.random.default_rng(0).gamma(2, 10, 137)]
    ordered = sorted(samples)

    def reference(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    found = latency(samples)
    assert [found.p50, found.p95, found.p99] == pytest.approx([reference(0.5), reference(0.95), reference(0.99)])
    assert quantiles(samples) == pytest.approx([reference(i / 100) for i in range(101)], abs=1e-3)


def test_rate_counts_a_half_open_window():
    times = np.arange(0, 10, 0.25)
    assert rate(times, 2, 6) == 4.0
    assert rate(times, 100, 101) == 0


def report(setup: Setup) -> BenchReport:
    saturation = [
        SaturationRun(i, backend, stream, stream / backend, {"engine": cpu / 10}, 100, {"engine": Usage(cpu, 1.5, rss)})
        for i, (backend, stream, cpu, rss) in enumerate(
            [(100.0, 90.0, 150.0, 300.0), (50.0, 48.0, 130.0, 310.0), (110.0, 80.0, 140.0, 305.0)], start=1
        )
    ]
    open_loop = OpenLoopRun(
        cameras=4,
        offered_fps=64.0,
        throughput_fps=64.0,
        frames=640,
        results=640,
        seconds=10.0,
        anomalous=0.5,
        latency_ms=Latency(5.0, 9.0, 20.0),
        reader_latency_ms=Latency(6.0, 10.0, 21.0),
        stages_ms={"infer": Latency(1.0, 2.0, 3.0)},
        max_backlog=3,
        late_ms=0.5,
        usage={"engine": Usage(100.0, 10.0, 300.0)},
        quantiles_ms=[float(i) for i in range(101)],
    )
    offline = [OfflineRun(setup, 120.0)]
    return BenchReport("m@1", setup, "embedded", {"source": "x", "n": 1}, stamp(), saturation, [open_loop], offline)


def test_report_document_has_the_names_that_scripts_rely_on():
    document = json.loads(json.dumps(report(Setup("onnx", "int8", 8, 2)).to_dict(), allow_nan=False))
    assert document["throughput_fps"] == 80.0
    assert document["backend_fps"] == 100.0
    assert document["ratio"] == median([0.9, 0.96, 80 / 110])
    assert document["latency_ms"] == {"p50": 5.0, "p95": 9.0, "p99": 20.0}
    assert (document["cpu_percent"], document["rss_mb"], document["frames"]) == (140.0, 310.0, 940)
    assert document["cpu_ms"] == {"engine": 14.0}
    assert [run["kind"] for run in document["runs"]] == ["saturation"] * 3 + ["open_loop", "offline"]
    assert document["runs"][-1]["precision"] == document["precision"] == "int8"


def test_plot_is_a_picture(tmp_path):
    plot(report(Setup("onnx", "fp32", 8, 0)), tmp_path / "bench.png")
    assert cv2.imread(str(tmp_path / "bench.png")).size > 0


def test_stamp_is_plain_json_and_names_versions():
    document = json.loads(json.dumps(stamp()))
    assert document["cores"] >= 1
    assert document["versions"]["numpy"] == np.__version__


def test_worker_answers_and_a_dead_one_is_an_error():
    with Worker([sys.executable, "-c", ECHO]) as worker:
        assert [worker.measure(x=x)["twice"] for x in (1, 5)] == [2, 10]
        with pytest.raises(WorkerError, match="status 1"):
            worker.measure(y=1)


def test_worker_that_never_starts_is_an_error():
    with pytest.raises(WorkerError, match="status 3"):
        Worker([sys.executable, "-c", "raise SystemExit(3)"])


def test_meter_sees_a_busy_process():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    meter = Meter({"busy": busy.pid})
    with pytest.raises(subprocess.TimeoutExpired):
        busy.wait(0.5)
    usage = meter.stop()["busy"]
    busy.kill()
    busy.wait()
    assert 5 < usage.cpu_percent < 130
    assert 5 < usage.rss_mb < 100


def test_cameras_take_turns_and_frames_carry_the_due_time():
    cameras = Cameras([b"one", b"two", b"three"], cameras=2)
    parcels = [cameras.parcel(ts_ns=100 + i) for i in range(4)]
    frames = [decode_frame(parcel.meta, parcel.data) for parcel in parcels]
    assert [frame.camera for frame in frames] == ["cam0", "cam1", "cam0", "cam1"]
    assert [frame.data for frame in frames] == [b"one", b"two", b"three", b"one"]
    assert [(frame.id, frame.ts_ns) for frame in frames] == [("1", 100), ("2", 101), ("3", 102), ("4", 103)]


def test_due_times_are_evenly_spaced():
    times = list(due_times(fps=100, seconds=0.1))
    assert len(times) in (10, 11)
    np.testing.assert_allclose(np.diff(times), 10_000_000, atol=1)


def test_pictures_are_taken_from_the_test_part(tmp_path, small_bundle):
    for part, level in (("train/good", 10), ("test/good", 100), ("ground_truth/x", 255)):
        (tmp_path / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / part / "0.png"), np.full((40, 40, 3), level, np.uint8))
    folder = made(tmp_path)
    found = prepare(tmp_path, small_bundle.manifest, folder)
    [file] = folder.iterdir()
    assert found.n == 1
    assert cv2.imread(str(file)).mean() == pytest.approx(100, abs=2)


def test_without_pictures_a_texture_of_the_usual_size_is_made(tmp_path, small_bundle, monkeypatch):
    monkeypatch.setattr(sys, "path", [])  # no elpv-dataset
    folder = made(tmp_path)
    found = prepare(None, small_bundle.manifest, folder)
    assert "synthetic" in found.source
    assert {cv2.imread(str(file)).shape for file in folder.iterdir()} == {(50, 60, 3)}


def test_a_folder_without_pictures_is_refused(tmp_path, small_bundle):
    with pytest.raises(DataError, match="no pictures here"):
        prepare(made(tmp_path), small_bundle.manifest, tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        prepare(tmp_path / "nowhere", small_bundle.manifest, tmp_path)


def made(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("changes", [{"cameras": 0}, {"share": 1.5}, {"offline_batches": (0,)}, {"segment_s": 0.1}])
def test_wrong_options_are_refused(changes):
    with pytest.raises(UsageError, match="bench: expected"):
        BenchOptions(bundle=Path("x"), **changes)


@pytest.mark.slow
def test_everything_once(small_bundle, tmp_path):
    """A real server, `engine serve`, cameras and a reader: every frame ends as a result, the figures agree."""
    lines: list[str] = []
    options = BenchOptions(
        bundle=small_bundle.path,
        runtime=Runtime(backend="onnx", threads=1),
        batch=4,
        cameras=2,
        fps=20,
        seconds=1.0,
        segment_s=0.5,
        rounds=1,
        offline_batches=(2,),
    )
    document = bench(options, lines.append).to_dict()
    runs = {run["kind"]: run for run in document["runs"]}
    assert runs["open_loop"]["results"] == runs["open_loop"]["frames"] in (40, 41)
    assert runs["open_loop"]["offered_fps"] == 40
    assert 0 < document["latency_ms"]["p50"] <= runs["open_loop"]["reader_latency_ms"]["p50"] + 5
    assert document["throughput_fps"] > 40
    assert document["rss_mb"] > 20
    assert set(document["cpu_ms"]) == {"backend", "engine", "producer", "server"}
    assert {run["backend"] for run in document["runs"] if run["kind"] == "offline"} >= {"onnx"}
    assert len(lines) >= 4
