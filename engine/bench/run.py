"""`engine bench`: the backend alone and the whole stream, measured in turn on the same pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from engine import bundle as bundles
from engine.bench import offline
from engine.bench.environment import stamp
from engine.bench.pictures import Pictures, prepare
from engine.bench.report import BenchReport, OfflineRun, OpenLoopRun, SaturationRun, Setup
from engine.bench.rig import Rig, Saturation
from engine.bench.worker import Document
from engine.bundle import Bundle
from engine.config import Runtime
from engine.contract import Precision
from engine.errors import UsageError
from engine.serving.select import choose_backend, choose_precision, local_backends

Say = Callable[[str], None]
_CPU_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `engine bench` measures.

    `data` None takes the bundle's training set, the demo's pictures or a made-up texture. `url` is a server's or
    `embedded`. `rounds` pairs of (backend alone, saturated stream) segments of `segment_s` find the sustained rate;
    then `cameras` send `fps` frames/s each (0: together `share` of the sustained rate) for `seconds`.
    `offline_batches` are the batch sizes at which every backend and precision is measured alone; empty for none.
    """

    bundle: Path
    data: Path | None = None
    url: str = "embedded"
    runtime: Runtime = field(default_factory=Runtime)
    batch: int = 8
    cameras: int = 4
    fps: float = 0.0
    share: float = 0.8
    seconds: float = 15.0
    segment_s: float = 3.0
    rounds: int = 5
    offline_batches: tuple[int, ...] = (1, 8)

    def __post_init__(self) -> None:
        counts = (self.batch, self.cameras, self.rounds, *self.offline_batches)
        if min(counts) < 1 or self.fps < 0 or min(self.seconds, self.segment_s) < 0.5 or not 0 < self.share <= 1:
            raise UsageError(
                "bench: expected batch sizes, --cameras and --rounds of at least 1, segments of at least 0.5 s, "
                "--fps of at least 0 and --share in (0, 1]"
            )


def bench(options: BenchOptions, say: Say = lambda _: None) -> BenchReport:
    """Measure a bundle; `say` gets a line for every step.

    Raises UsageError or BundleError for wrong input, BackendError, StreamError or ServeError where a part fails.
    """
    bundle = bundles.read(options.bundle)
    setup = _setup(bundle, options)
    with tempfile.TemporaryDirectory(prefix="engine-bench-") as scratch:
        folder = Path(scratch) / "pictures"
        folder.mkdir()
        pictures = prepare(options.data, bundle.manifest, folder)
        say(f"pictures: {pictures.n} from {pictures.source}; {setup.backend} {setup.precision}, batch {setup.batch}")
        environment = stamp()
        rig = Rig(bundle.path, setup, options.url, options.cameras, folder, Path(scratch))
        with rig:
            saturation = list(_rounds(rig, bundle, pictures, setup, options, say))
            open_loop = _open_loop(rig, saturation, options, say)
        return BenchReport(
            model=bundle.manifest.model,
            setup=setup,
            server="embedded" if options.url == "embedded" else "external",
            pictures=pictures.describe(),
            environment=environment,
            saturation=saturation,
            open_loop=[open_loop],
            offline=list(_offline(bundle, pictures, setup, options, say)),
            ensemble=bundle.manifest.report if bundle.members else {},
        )


def _setup(bundle: Bundle, options: BenchOptions) -> Setup:
    precision = choose_precision(options.runtime)
    bundle.calibration(precision)
    backend = choose_backend(bundle, options.runtime, options.batch).backend
    return Setup(backend, precision, options.batch, options.runtime.threads, options.runtime.cascade)


def _rounds(
    rig: Rig, bundle: Bundle, pictures: Pictures, setup: Setup, options: BenchOptions, say: Say
) -> Iterator[SaturationRun]:
    """Pairs of segments, so that what else the machine does hits both sides alike; the first pair warms up."""
    with offline.backend_worker(bundle, pictures.folder, setup) as worker:
        for number in range(options.rounds + 1):
            alone = worker.measure(seconds=options.segment_s)
            stream = rig.saturate(options.segment_s)
            if number == 0:
                continue
            run = _round(number, alone, stream)
            say(f"round {number}: stream {run.throughput_fps:.1f} frames/s, backend alone {run.backend_fps:.1f}")
            yield run


def _round(number: int, alone: Document, stream: Saturation) -> SaturationRun:
    return SaturationRun(
        round=number,
        backend_fps=alone["fps"],
        throughput_fps=stream.fps,
        ratio=stream.fps / alone["fps"],
        cpu_ms={"backend": alone["cpu_ms"]}
        | {name: 1e3 * usage.cpu_s / stream.frames for name, usage in stream.usage.items()},
        frames=stream.frames,
        usage=stream.usage,
    )


def _open_loop(rig: Rig, saturation: list[SaturationRun], options: BenchOptions, say: Say) -> OpenLoopRun:
    sustained = median(run.throughput_fps for run in saturation)
    run = rig.open_loop(options.fps * options.cameras or options.share * sustained, options.seconds)
    p = run.latency_ms
    say(f"{run.cameras} cameras, {run.offered_fps:.1f} frames/s: {p.p50:.1f} / {p.p95:.1f} / {p.p99:.1f} ms p50/95/99")
    return run


def _offline(bundle: Bundle, pictures: Pictures, setup: Setup, options: BenchOptions, say: Say) -> Iterator[OfflineRun]:
    for backend in local_backends():
        for precision in _CPU_PRECISIONS:
            if precision not in bundle.precisions:
                continue
            for batch in options.offline_batches:
                each = replace(setup, backend=backend, precision=precision, batch=batch)
                run = offline.measure(bundle, pictures.folder, each, options.segment_s, rounds=3)
                say(f"alone: {backend} {precision}, batch {batch}: {run.fps:.1f} frames/s")
                yield run
