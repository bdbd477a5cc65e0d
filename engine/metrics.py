"""What the engine measures of itself, as Prometheus metrics, and the small HTTP server that shows them.

`/metrics` is Prometheus text, `/healthz` is 200 while the process works, `/readyz` is 200 only while frames are read
and results accepted, else 503.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from engine.errors import UsageError

ELSEWHERE = "elsewhere"  # the outcome of a frame that another consumer ended
_MAX_CAMERAS = 256  # per line; camera names come from producers, and each would be a time series for ever
_OTHER = "other"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128)


class StageTimes(Collector):
    """A histogram of the time of frames in each stage; prometheus-client's own costs ten times as much per frame."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums_s: dict[tuple[str, str], float] = {}

    def observe(self, line: str, timing_ms: Mapping[str, float]) -> None:
        """Count a frame in each of its stages."""
        with self._lock:
            for stage, ms in timing_ms.items():
                key = (line, stage)
                if key not in self._counts:
                    self._counts[key] = [0] * (len(_SECONDS) + 1)
                    self._sums_s[key] = 0.0
                self._counts[key][bisect_left(_SECONDS, ms / 1e3)] += 1
                self._sums_s[key] += ms / 1e3

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What prometheus-client asks for at a scrape."""
        family = HistogramMetricFamily("engine_stage_seconds", "Time of a frame in a stage", labels=["line", "stage"])
        with self._lock:
            for key, counts in self._counts.items():
                buckets = list(zip([*map(floatToGoString, _SECONDS), "+Inf"], accumulate(counts), strict=True))
                family.add_metric(key, buckets, sum_value=self._sums_s[key])
        yield family


class Metrics:
    """The counters of one process; every method may be called from any thread."""

    def __init__(self) -> None:
        here = CollectorRegistry()
        self.registry = here
        self._frames = Counter(
            "engine_frames",
            "Frames ended here, by verdict or dead letter",
            ["line", "camera", "outcome"],
            registry=here,
        )
        self._stages = StageTimes()
        here.register(self._stages)
        self._batch = Histogram("engine_batch_frames", "Frames in a batch", ["model"], buckets=_FRAMES, registry=here)
        self._backlog = Gauge("engine_backlog_frames", "Entries in the frames stream", ["line"], registry=here)
        self._held_frames = Gauge("engine_held_frames", "Frames between delivery and end", registry=here)
        self._held_bytes = Gauge("engine_held_bytes", "Memory charged for them", registry=here)
        self._trimmed = Counter(
            "engine_trimmed_frames", "Frames that frames_maxlen removed unread", ["line"], registry=here
        )
        self._ready = Gauge("engine_ready", "1 while frames are read and results accepted", registry=here)
        self._frame_counters: dict[tuple[str, str, str], Counter] = {}
        self._cameras: dict[str, set[str]] = {}

    def ended(self, line: str, camera: str, outcome: str, timing_ms: Mapping[str, float]) -> None:
        """A frame's end and the times of its stages."""
        key = (line, self._bounded(line, camera), outcome)
        counter = self._frame_counters.get(key)
        if counter is None:
            counter = self._frame_counters[key] = self._frames.labels(*key)
        counter.inc()
        self._stages.observe(line, timing_ms)

    def batch(self, model: str, frames: int) -> None:
        """A batch that was run."""
        self._batch.labels(model).observe(frames)

    def backlog(self, entries: Mapping[str, int]) -> None:
        """Entries in each line's frames stream."""
        for line, count in entries.items():
            self._backlog.labels(line).set(count)

    def held(self, frames: int, payload_bytes: int) -> None:
        """What the process holds."""
        self._held_frames.set(frames)
        self._held_bytes.set(payload_bytes)

    def trimmed(self, line: str, frames: int) -> None:
        """Frames that were removed unread."""
        self._trimmed.labels(line).inc(frames)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Where the ready gauge looks."""
        self._ready.set_function(lambda: float(ready()))

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Frames of each line by how they ended."""
        found: dict[str, dict[str, int]] = {}
        for (line, _, outcome), counter in self._frame_counters.items():
            (total,) = [sample.value for family in counter.collect() for sample in family.samples if _counts(sample)]
            by_outcome = found.setdefault(line, {})
            by_outcome[outcome] = by_outcome.get(outcome, 0) + int(total)
        return found

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _bounded(self, line: str, camera: str) -> str:
        known = self._cameras.setdefault(line, set())
        if camera in known:
            return camera
        if len(known) >= _MAX_CAMERAS:
            return _OTHER
        known.add(camera)
        return camera


def _counts(sample: Sample) -> bool:
    """Whether a counter's sample is its count, and not the time of its creation."""
    return sample.name.endswith("_total")


class MetricsServer:
    """Serves the metrics over HTTP from a thread of its own; a context manager. `port` is the one it got."""

    def __init__(
        self, metrics: Metrics, host: str, port: int, *, healthy: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        def answer(path: str) -> tuple[int, bytes]:
            if path == "/metrics":
                return 200, metrics.text()
            if path in ("/healthz", "/readyz"):
                fine = healthy() if path == "/healthz" else ready()
                return (200, b"ok\n") if fine else (503, b"not ready\n")
            return 404, b"not found: try /metrics, /healthz or /readyz\n"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", CONTENT_TYPE_LATEST if self.path == "/metrics" else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a scrape every few seconds is no news."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise UsageError(f"metrics: cannot listen on {host}:{port} ({error.strerror}); set metrics.port") from None
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
