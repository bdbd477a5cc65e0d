"""What does the stream cost over the backend alone, and how fast is it from a camera's JPEG to a published result?"""

from __future__ import annotations

import sys

from benchmarks import like_for_like
from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, elpv
from engine.bench.run import BenchOptions, bench
from engine.config import Runtime
from engine.contract import Precision

QUESTION = "streaming"
_DEFAULT = "default"
_LIKE_FOR_LIKE = "ResNet-18, 256 px, 100 channels"
_RUNS: tuple[tuple[str, Precision], ...] = ((_DEFAULT, "fp32"), (_DEFAULT, "int8"), (_LIKE_FOR_LIKE, "fp32"))
_STRIDE_PX = 8  # of the like-for-like bundle: the default's grid


def answer(context: Context) -> Answer:
    """Bench the default's bundle in both precisions, and the heavier one of the comparison with anomalib."""
    data = DataSet(context.data[0].name, context.data[0]) if context.data else elpv(context, "mono")
    bundles = {
        _DEFAULT: bundle_of(context, data),
        _LIKE_FOR_LIKE: like_for_like.bundle(context, data.path, _STRIDE_PX).path,
    }
    runs: list[Document] = []
    for name, precision in _RUNS:
        options = BenchOptions(
            bundle=bundles[name],
            data=data.path,
            runtime=Runtime(precision=precision, threads=context.threads),
            offline_batches=() if runs else (1, 8, 32),
        )
        found = bench(options, lambda line: print(line, file=sys.stderr)).to_dict()
        runs.append({"bundle": name, "precision": precision} | found)
    return Answer(QUESTION, {"data": data.name, "streams": runs})


def table(document: Document) -> str:
    """Markdown: the streams, then the backends alone."""
    lines = [
        "| bundle | precision | backend | stream frames/s | backend alone | ratio | p50/95/99 ms at 80 % "
        "| engine CPU | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in document["streams"]:
        latency = " / ".join(f"{run['latency_ms'][name]:.0f}" for name in ("p50", "p95", "p99"))
        lines.append(
            f"| {run['bundle']} | {run['precision']} | {run['backend']} | {run['throughput_fps']:.0f} "
            f"| {run['backend_fps']:.0f} | {run['ratio']:.2f} | {latency} | {run['cpu_percent']:.0f} % "
            f"| {run['rss_mb']:.0f} |"
        )
    return "\n".join([*lines, "", *_offline(document["streams"][0]["runs"])])


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
