"""What does an ensemble save where its members begin alike? Two FYDs on one backbone, that part once or twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import msgspec
import numpy as np

from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, elpv, engine
from engine import bundle as bundles
from engine.bundle import Bundle
from engine.contract import MANIFEST_NAME, Precision
from engine.serving.ensemble import Ensemble
from engine.serving.select import Local, open_local
from engine.types import F64, U8

QUESTION = "common"
_CHANNELS = 100  # of the second member, the first has all
_BATCH = 8
_ROUNDS = 25
_APART, _TOGETHER = "apart", "together"

Step = Callable[[], object]


def answer(context: Context) -> Answer:
    """Both precisions in both runtimes."""
    data = DataSet(context.data[0].name, context.data[0]) if context.data else elpv(context, "mono")
    fused = _fused(context, data)
    backends: tuple[Local, ...] = ("onnx", "openvino")
    runs = [compared(fused, b, precision, context.threads) for precision in fused.precisions for b in backends]
    return Answer(QUESTION, {"bundle": fused.manifest.model, "batch": _BATCH, "rounds": _ROUNDS, "runs": runs})


def table(document: Document) -> str:
    """Markdown: CPU ms a picture of a step, and the median over rounds of the ratio."""
    lines = [
        "| precision | backend | step | each by itself, CPU ms | common part once, CPU ms | ratio | largest change |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in document["runs"]:
        for name, found in run["steps"].items():
            lines.append(
                f"| {run['precision']} | {run['backend']} | {name} | {found[_APART]:.2f} | {found[_TOGETHER]:.2f} "
                f"| {found['ratio']:.2f} | {run['change']:.0e} |"
            )
    return "\n".join(lines)


def compared(fused: Bundle, backend: Local, precision: Precision, threads: int, rounds: int = _ROUNDS) -> Document:
    """Both ways in turns: the whole ensemble, and the two steps of a cascade."""
    size = fused.sheet
    sheets = np.random.default_rng(0).integers(0, 256, (_BATCH, size.height, size.width, 3), dtype=np.uint8)
    ways = {
        name: open_local(bundle, backend, precision, threads)
        for name, bundle in ((_APART, _apart(fused)), (_TOGETHER, fused))
    }
    scores = {name: way.predict(sheets).scores for name, way in ways.items()}
    steps = {name: _steps(way, sheets) for name, way in ways.items() if isinstance(way, Ensemble)}
    found = {step: _timed({name: steps[name][step] for name in steps}, rounds) for step in steps[_APART]}
    for way in ways.values():
        way.close()
    return {
        "precision": precision,
        "backend": backend,
        "steps": found,
        "change": _change(scores[_APART], scores[_TOGETHER]),
    }


def _fused(context: Context, data: DataSet) -> Bundle:
    """The default's bundle and one of fewer channels as an ensemble, kept in `work`."""
    few, out = context.folder("common") / f"{data.name}-few", context.folder("common") / data.name
    threads = ("--threads", context.threads)
    if not (out / MANIFEST_NAME).is_file():
        engine("train", data.path, "--out", few, "--channels", _CHANNELS, *threads)
        engine("fuse", bundle_of(context, data), few, "--data", data.path, "--out", out, *threads)
    return bundles.read(out)


def _apart(fused: Bundle) -> Bundle:
    """Every member with its own network."""
    ensembles = {
        precision: msgspec.structs.replace(
            spec, members=tuple(msgspec.structs.replace(member, network=None) for member in spec.members)
        )
        for precision, spec in fused.manifest.ensembles.items()
    }
    return replace(fused, manifest=msgspec.structs.replace(fused.manifest, ensembles=ensembles))


def _steps(ensemble: Ensemble, sheets: U8) -> dict[str, Step]:
    first = ensemble.screen(sheets)
    return {
        "all members": lambda: ensemble.predict(sheets),
        "cascade, first": lambda: ensemble.screen(sheets),
        "cascade, rest": lambda: ensemble.complete(sheets, first),
    }


def _timed(ways: Mapping[str, Step], rounds: int) -> Document:
    """CPU ms a picture, medians; the ratio is that of neighbours."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start_s = time.process_time()
            run()
            took[name].append(1e3 * (time.process_time() - start_s) / _BATCH)
    ratios = [apart / together for apart, together in zip(took[_APART], took[_TOGETHER], strict=True)]
    return {**{name: median(found) for name, found in took.items()}, "ratio": median(ratios)}


def _change(exact: F64, found: F64) -> float:
    """The largest change of a fused score, as a share of it."""
    return float(np.max(np.abs(found - exact) / exact))
