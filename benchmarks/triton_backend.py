"""What does a tritonserver cost over running in this process? Batches of 8, several in flight, in turns."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import psutil

from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, elpv, engine
from engine import bundle as bundles
from engine.bench.report import latency
from engine.bundle import Bundle
from engine.config import Triton
from engine.contract import Precision
from engine.serving.base import Predictor
from engine.serving.select import open_local
from engine.serving.triton import TritonPredictor
from engine.triton.repository import Repository
from engine.triton.server import Server
from engine.types import U8

QUESTION = "triton"
_BATCH = 8
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_IN_PROCESS, _SHARED, _MESSAGES = "in process", "Triton, shared memory", "Triton, messages"
_CALLERS = {_IN_PROCESS: 2, _SHARED: 3, _MESSAGES: 3}  # what `engine serve` has in flight
_MEMORY: dict[str, Literal["system", "off"]] = {_SHARED: "system", _MESSAGES: "off"}
_SECONDS = 4.0
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Run:
    """One contender for some seconds: CPU time of all processes a frame, and the ms of each batch."""

    frames_per_s: float
    cpu_ms: float
    took_ms: list[float]


def answer(context: Context) -> Answer:
    """Both precisions of the default's bundle, on this machine's CPU."""
    data = DataSet(context.data[0].name, context.data[0]) if context.data else elpv(context, "mono")
    bundle = bundles.read(bundle_of(context, data))
    runs = [
        compared(context, bundle, precision) for precision in _PRECISIONS if precision in bundle.manifest.executables
    ]
    return Answer(QUESTION, {"bundle": bundle.manifest.model, "batch": _BATCH, "rounds": _ROUNDS, "runs": runs})


def table(document: Document) -> str:
    """Markdown: frames/s, medians over rounds, and each one's share of what this process does by itself."""
    lines = [
        "| precision | where | in flight | frames/s | share | CPU ms a frame | p50/99 ms of a batch |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in document["runs"]:
        for name, found in run["contenders"].items():
            ms = found["latency_ms"]
            lines.append(
                f"| {run['precision']} | {name} | {found['in_flight']} | {found['frames_per_s']:.0f} "
                f"| {100 * found['share']:.0f} % | {found['cpu_ms']:.1f} | {ms['p50']:.0f} / {ms['p99']:.0f} |"
            )
    return "\n".join(lines)


def compared(
    context: Context, bundle: Bundle, precision: Precision, seconds: float = _SECONDS, rounds: int = _ROUNDS
) -> Document:
    """One executable, every contender for some seconds in each round."""
    size = bundle.manifest.input
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, size.height, size.width, 3), dtype=np.uint8)
    with _contenders(context, bundle, precision) as (contenders, processes):

        def run(seconds: float) -> dict[str, Run]:
            return {
                name: _run(predictor, images, _CALLERS[name], seconds, processes)
                for name, predictor in contenders.items()
            }

        run(seconds / 4)  # warms up
        found = [run(seconds) for _ in range(rounds)]
    return {"precision": precision, "contenders": {name: _summary(found, name) for name in found[0]}}


@contextmanager
def _contenders(
    context: Context, bundle: Bundle, precision: Precision
) -> Iterator[tuple[dict[str, Predictor], list[psutil.Process]]]:
    """The network in this process, a server's clients beside it, and the processes that work for either."""
    repository = context.folder("triton") / precision
    engine("export", bundle.path, "--target", "triton", "--precision", precision, "--out", repository)
    server = Server(Repository(repository))
    running = server.up()
    with ExitStack() as stack:
        stack.callback(server.down)
        local = open_local(bundle, "onnx", precision, context.threads)
        stack.callback(local.close)
        contenders: dict[str, Predictor] = {_IN_PROCESS: local}
        for name, memory in _MEMORY.items():
            settings = Triton(url=running.grpc, shared_memory=memory, timeout_ms=60_000)
            contenders[name] = TritonPredictor(bundle, precision, settings, _BATCH)
            stack.callback(contenders[name].close)
        process = psutil.Process(running.pid)
        yield contenders, [psutil.Process(), process, *process.children(recursive=True)]


def _run(predictor: Predictor, images: U8, callers: int, seconds: float, processes: Sequence[psutil.Process]) -> Run:
    """Several threads that ask without a pause."""
    took_ms: list[float] = []
    start_s, cpu_s = time.perf_counter(), _cpu_s(processes)

    def ask() -> None:
        while (began_s := time.perf_counter()) < start_s + seconds:
            predictor.predict(images)
            took_ms.append(1e3 * (time.perf_counter() - began_s))

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = len(took_ms) * len(images)
    return Run(frames / (time.perf_counter() - start_s), 1e3 * (_cpu_s(processes) - cpu_s) / frames, took_ms)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _summary(rounds: list[dict[str, Run]], name: str) -> Document:
    """Medians; the share is that of the same round's, because machines are not equally fast all the time."""
    runs = [found[name] for found in rounds]
    return {
        "in_flight": _CALLERS[name],
        "frames_per_s": statistics.median(run.frames_per_s for run in runs),
        "share": statistics.median(found[name].frames_per_s / found[_IN_PROCESS].frames_per_s for found in rounds),
        "cpu_ms": statistics.median(run.cpu_ms for run in runs),
        "latency_ms": asdict(latency([ms for run in runs for ms in run.took_ms])),
    }
