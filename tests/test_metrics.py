"""What a scrape sees, read with prometheus-client's own parser."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import UsageError
from engine.metrics import Metrics, MetricsServer


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_frames_are_counted_by_line_camera_and_outcome() -> None:
    metrics = Metrics()
    for outcome in ("good", "good", "decode"):
        metrics.ended("line1", "cam1", outcome, {})
    seen = samples(metrics)
    labels = (("camera", "cam1"), ("line", "line1"))
    assert seen["engine_frames_total", (*labels, ("outcome", "good"))] == 2
    assert seen["engine_frames_total", (*labels, ("outcome", "decode"))] == 1


def test_stage_times_are_a_histogram_in_seconds() -> None:
    metrics = Metrics()
    for ms in (0.5, 1.0, 30.0, 90_000.0):
        metrics.ended("line1", "cam1", "good", {"decode": ms})
    seen = samples(metrics)
    labels = (("line", "line1"), ("stage", "decode"))
    assert seen["engine_stage_seconds_count", labels] == 4
    assert seen["engine_stage_seconds_sum", labels] == pytest.approx(90.0315)
    for bound, count in (("0.001", 2), ("0.02", 2), ("0.05", 3), ("60.0", 3), ("+Inf", 4)):
        assert seen["engine_stage_seconds_bucket", (("le", bound), *labels)] == count


def test_camera_names_cannot_grow_without_bound() -> None:
    metrics = Metrics()
    for i in range(400):
        metrics.ended("line1", f"cam{i}", "good", {})
    cameras = {dict(labels)["camera"]: value for (name, labels), value in samples(metrics).items() if "_total" in name}
    assert len(cameras) == 257
    assert cameras["other"] == 400 - 256


def test_gauges_and_trimming() -> None:
    metrics = Metrics()
    ready = [False]
    metrics.watch_ready(lambda: ready[0])
    metrics.backlog({"line1": 7})
    metrics.held(3, 4096)
    metrics.trimmed("line1", 5)
    metrics.batch("screw@1", 4)
    seen = samples(metrics)
    assert seen["engine_backlog_frames", (("line", "line1"),)] == 7
    assert seen["engine_held_frames", ()] == 3
    assert seen["engine_held_bytes", ()] == 4096
    assert seen["engine_trimmed_frames_total", (("line", "line1"),)] == 5
    assert seen["engine_batch_frames_sum", (("model", "screw@1"),)] == 4
    assert seen["engine_ready", ()] == 0
    ready[0] = True
    assert samples(metrics)["engine_ready", ()] == 1


def test_the_server_answers_metrics_health_and_readiness() -> None:
    state = {"healthy": True, "ready": False}
    metrics = Metrics()
    with MetricsServer(
        metrics, "127.0.0.1", 0, healthy=lambda: state["healthy"], ready=lambda: state["ready"]
    ) as server:
        assert get(server.port, "/healthz") == (200, "ok\n")
        assert get(server.port, "/readyz")[0] == 503
        state |= {"healthy": False, "ready": True}
        assert get(server.port, "/healthz")[0] == 503
        assert get(server.port, "/readyz") == (200, "ok\n")
        assert "engine_ready" in get(server.port, "/metrics")[1]
        assert get(server.port, "/elsewhere")[0] == 404
        with pytest.raises(UsageError, match=r"metrics\.port"):
            MetricsServer(metrics, "127.0.0.1", server.port, healthy=bool, ready=bool)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
