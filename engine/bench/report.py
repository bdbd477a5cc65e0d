"""What `engine bench` reports: the streaming run on top, every run below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

import numpy as np
import numpy.typing as npt

from engine.config import CascadeSetting
from engine.contract import Precision
from engine.serving.select import Local

Samples = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of a latency in ms."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used: CPU in percent of one core over the run and in seconds, peak resident memory in MB."""

    cpu_percent: float
    cpu_s: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Setup:
    """What executes a bundle, and how."""

    backend: Local
    precision: Precision
    batch: int
    threads: int  # 0: all cores
    cascade: CascadeSetting = "auto"  # of the stream; the backend alone runs every member of an ensemble


@dataclass(frozen=True, slots=True)
class OfflineRun:
    """A backend alone: resize, network, map and score of decoded pictures, in a process of its own."""

    setup: Setup
    fps: float
    kind: str = "offline"


@dataclass(frozen=True, slots=True)
class SaturationRun:
    """One round of the paired comparison: the backend alone, then the stream as fast as it goes.

    `ratio` is throughput_fps / backend_fps of this round; `cpu_ms` what a frame costs in CPU time, in the backend alone
    and in each process of the stream, which depends less on what else the machine does.
    """

    round: int
    backend_fps: float
    throughput_fps: float
    ratio: float
    cpu_ms: Mapping[str, float]
    frames: int
    usage: Mapping[str, Usage]
    kind: str = "saturation"


@dataclass(frozen=True, slots=True)
class OpenLoopRun:
    """Cameras at a fixed rate, whether or not the engine keeps up.

    `latency_ms` is the results' own `total`: scheduled capture time to publish; `reader_latency_ms` ends when a reader
    holds the result; `stages_ms` its parts. `anomalous` is the share of frames rejected, `max_backlog`
    the most unread frames seen, `late_ms` how far the cameras themselves fell behind at worst, `quantiles_ms` the 0 %,
    1 %, ... 100 % latency.
    """

    cameras: int
    offered_fps: float
    throughput_fps: float
    frames: int
    results: int
    seconds: float
    anomalous: float
    latency_ms: Latency
    reader_latency_ms: Latency
    stages_ms: Mapping[str, Latency]
    max_backlog: int
    late_ms: float
    usage: Mapping[str, Usage]
    quantiles_ms: Sequence[float]
    kind: str = "open_loop"


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything measured for one bundle on one machine.

    `ensemble` is what its bundle says of the cascade, empty for one model: mean cost and disagreement with the full
    ensemble by kind of frame, see docs/operating.md.
    """

    model: str
    setup: Setup
    server: str
    pictures: Mapping[str, object]
    environment: Mapping[str, object]
    saturation: Sequence[SaturationRun] = ()
    open_loop: Sequence[OpenLoopRun] = ()
    offline: Sequence[OfflineRun] = ()
    ensemble: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, object]:
        """The JSON document: the medians of the streaming run first, then all runs."""
        return {
            **self._streaming(),
            "model": self.model,
            **asdict(self.setup),
            "server": self.server,
            "pictures": dict(self.pictures),
            "ensemble": dict(self.ensemble),
            "notes": list(self.notes),
            "environment": dict(self.environment),
            "runs": [
                *(asdict(run) for run in self.saturation),
                *(asdict(run) for run in self.open_loop),
                *({"kind": run.kind, **asdict(run.setup), "fps": run.fps} for run in self.offline),
            ],
        }

    def _streaming(self) -> dict[str, object]:
        usage = [run.usage["engine"] for run in self.saturation]
        latency = self.open_loop[0].latency_ms
        return {
            "throughput_fps": median(run.throughput_fps for run in self.saturation),
            "backend_fps": median(run.backend_fps for run in self.saturation),
            "ratio": median(run.ratio for run in self.saturation),
            "latency_ms": asdict(latency),
            "cpu_ms": {name: median(run.cpu_ms[name] for run in self.saturation) for name in self.saturation[0].cpu_ms},
            "cpu_percent": median(each.cpu_percent for each in usage),
            "rss_mb": max(each.rss_mb for each in usage),
            "frames": sum(run.frames for run in self.saturation) + sum(run.results for run in self.open_loop),
        }


def latency(samples_ms: Samples) -> Latency:
    """Percentiles with linear interpolation."""
    p50, p95, p99 = (float(value) for value in np.percentile(np.asarray(samples_ms), (50, 95, 99)))
    return Latency(p50, p95, p99)


def quantiles(samples_ms: Samples) -> list[float]:
    """The 0 %, 1 %, ... 100 % quantiles, for a plot of the distribution."""
    return [round(float(value), 3) for value in np.percentile(np.asarray(samples_ms), np.arange(101))]


def rate(times: Samples, start: float, end: float) -> float:
    """Events within [start, end) by unit of time."""
    when = np.asarray(times)
    return float(np.count_nonzero((when >= start) & (when < end)) / (end - start))
