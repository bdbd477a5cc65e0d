"""What does the stream cost over the backend alone, and how fast is it from a camera's JPEG to a published result?"""

from __future__ import annotations

import sys

from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, elpv
from engine.bench.run import BenchOptions, bench
from engine.config import Runtime
from engine.contract import Precision

QUESTION = "streaming"
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def answer(context: Context) -> Answer:
    """Bench the demo's bundle in both precisions."""
    data = DataSet(context.data[0].name, context.data[0]) if context.data else elpv(context, "mono")
    bundle = bundle_of(context, data)
    runs: dict[str, Document] = {}
    for precision in _PRECISIONS:
        options = BenchOptions(
            bundle=bundle,
            data=data.path,
            runtime=Runtime(precision=precision, threads=context.threads),
            offline_batches=(1, 8, 32) if precision == _PRECISIONS[0] else (),
        )
        runs[precision] = bench(options, lambda line: print(line, file=sys.stderr)).to_dict()
    return Answer(QUESTION, {"data": data.name, **runs})


def table(document: Document) -> str:
    """Markdown: the stream, then the backends alone."""
    lines = [
        "| precision | backend | stream frames/s | backend alone | ratio | p50/95/99 ms at 80 % | engine CPU | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for precision in _PRECISIONS:
        run = document[precision]
        latency = " / ".join(f"{run['latency_ms'][name]:.0f}" for name in ("p50", "p95", "p99"))
        lines.append(
            f"| {precision} | {run['backend']} | {run['throughput_fps']:.0f} | {run['backend_fps']:.0f} "
            f"| {run['ratio']:.2f} | {latency} | {run['cpu_percent']:.0f} % | {run['rss_mb']:.0f} |"
        )
    return "\n".join([*lines, "", *_offline(document[_PRECISIONS[0]]["runs"])])


def _offline(runs: list[Document]) -> list[str]:
    alone = [run for run in runs if run["kind"] == "offline"]
    batches = sorted({run["batch"] for run in alone})
    lines = [
        "| backend alone, frames/s | " + " | ".join(f"batch {batch}" for batch in batches) + " |",
        "|---" * (len(batches) + 1) + "|",
    ]
    for backend, precision in dict.fromkeys((run["backend"], run["precision"]) for run in alone):
        rates = {
            run["batch"]: run["fps"] for run in alone if (run["backend"], run["precision"]) == (backend, precision)
        }
        lines.append(f"| {backend} {precision} | " + " | ".join(f"{rates[batch]:.0f}" for batch in batches) + " |")
    return lines
