"""How fast is a whole detector on this GPU, are its scores right, and how near is it to what the device can do?

`python -m benchmarks.bench_plans BUNDLE` builds the plan of every precision that the bundle has, compares scores with
ONNX Runtime's, times batches from the host and back, and writes benchmarks/results/plans_DEVICE_BUNDLE.json. The file
is written after every step, so that a step that fails takes nothing with it; gpu.sh beside it runs this with everything
else that needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.roofline import Device, Work, work_of
from engine import bundle as bundles
from engine.bench.environment import stamp
from engine.bundle import Bundle
from engine.contract import Precision
from engine.export import agreement
from engine.machine import gpu
from engine.plans import library, store
from engine.plans.build import BuildOptions, Profile
from engine.serving import tensorrt
from engine.serving.base import Predictor
from engine.serving.tensorrt import LANES
from engine.types import U8

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROFILE = Profile(1, 32, 256)
BUDGET_S = 1.5
WARMUP = 5
_SIDE = 8192
_LINK_BYTES = 1 << 28


@dataclass(slots=True)
class Report:
    """The document as it grows, and the file it is in."""

    path: Path
    document: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def step(self, name: str, into: dict[str, Any], work: Callable[[], Any]) -> Any:
        """Do one step: its answer, or its error, goes into the document, and the document to disc."""
        started_s = time.perf_counter()
        answer = None
        try:
            answer = work()
            into[name] = answer
        except Exception as error:  # whatever it is, the other steps go on
            into[name] = {"error": f"{type(error).__name__}: {error}"}
            self.failed.append(name)
        print(f"{name}: {'FAILED' if answer is None else 'ok'}, {time.perf_counter() - started_s:.1f} s", flush=True)
        self.path.write_text(json.dumps(self.document, indent=1) + "\n")
        return answer


def measure(bundle: Bundle, report: Report) -> None:
    """Every precision of a bundle."""
    device = report.step("device", report.document, lambda: msgspec.to_builtins(measure_device()))
    rows: dict[str, Any] = {}
    report.document["precisions"] = rows
    for precision in bundle.manifest.executables:
        row: dict[str, Any] = {}
        rows[precision] = row
        if report.step("build", row, partial(build, bundle, precision)) is None:
            continue
        report.step("agreement", row, partial(agree, bundle, precision))
        work = report.step("work", row, partial(builtin_work, bundle, precision))
        limits = None if device is None or work is None else (Work(**work), Device(**device))
        report.step("times", row, partial(times, bundle, precision, limits))


def builtin_work(bundle: Bundle, precision: Precision) -> dict[str, float]:
    """What a batch must do, as plain values."""
    return dict(msgspec.to_builtins(work_of(bundle, precision)))


def build(bundle: Bundle, precision: Precision) -> dict[str, Any]:
    """Build the plan for this machine, whatever lies there."""
    started_s = time.perf_counter()
    plan = store.rebuild(bundle, precision, library.find(), BuildOptions(PROFILE), "the benchmark builds its own")
    return {"seconds": round(time.perf_counter() - started_s, 1), **msgspec.to_builtins(plan.record)}


def agree(bundle: Bundle, precision: Precision) -> dict[str, Any]:
    """Scores beside ONNX Runtime's, in batches that are and are not powers of two."""
    detector = tensorrt.open_detector(bundle, precision)
    images = agreement.noise(bundle, 7)
    found = [agreement.compare(detector, bundle, precision, images[:n]) for n in (1, 7)]
    detector.close()
    worst = max(found, key=lambda one: max(one.score, one.map))
    agreement.require(worst, precision, bundle.path)
    return dict(msgspec.to_builtins(worst))


def times(bundle: Bundle, precision: Precision, limits: tuple[Work, Device] | None) -> list[dict[str, Any]]:
    """Every batch size: alone, and as many at once as there are lanes."""
    detector = tensorrt.open_detector(bundle, precision)
    rows = []
    for n in BATCHES:
        images = agreement.noise(bundle, n)
        row = {"batch": n, **alone(detector, images), "overlapped_frames_per_s": overlapped(detector, images)}
        rows.append(row if limits is None else row | share(row, n, precision, *limits))
    detector.close()
    return rows


def alone(predictor: Predictor, images: U8, budget_s: float = BUDGET_S) -> dict[str, float]:
    """Latencies of batches one after another, from pictures in the host's memory to scores and maps there."""
    for _ in range(WARMUP):
        predictor.predict(images)
    taken: list[float] = []
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or len(taken) < 10:
        start = time.perf_counter()
        predictor.predict(images)
        taken.append(time.perf_counter() - start)
    p50, p99 = (float(np.quantile(taken, q)) for q in (0.5, 0.99))
    frames_per_s = len(images) / p50
    return {"p50_ms": round(1e3 * p50, 3), "p99_ms": round(1e3 * p99, 3), "frames_per_s": round(frames_per_s, 1)}


def overlapped(predictor: Predictor, images: U8, budget_s: float = BUDGET_S) -> float:
    """Frames/s with a thread per lane."""
    end = time.perf_counter() + budget_s

    def loop(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            predictor.predict(images)
            done += len(images)
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(LANES) as pool:
        frames = sum(pool.map(loop, range(LANES)))
    return round(frames / (time.perf_counter() - start), 1)


def share(row: dict[str, Any], n: int, precision: Precision, work: Work, device: Device) -> dict[str, Any]:
    """The least time that the device needs, as a share of what a batch took: alone, and overlapped."""
    least_s, bound = work.least_s(n, precision, device)
    return {
        "least_ms": round(1e3 * least_s, 4),
        "bound": bound,
        "of_roofline": round(1e3 * least_s / row["p50_ms"], 3),
        "overlapped_of_roofline": round(row["overlapped_frames_per_s"] * least_s / n, 3),
    }


def measure_device() -> Device:
    """The machine's own ceilings, by torch: large products, a large copy, a large pinned transfer."""
    import torch

    from benchmarks.bench_cuda import copy_gb_per_s, time_us

    torch.backends.cuda.matmul.allow_tf32 = False
    flops_per_s = {"fp32": _product(torch.float32), "fp16": _product(torch.float16), "int8": _product(torch.int8)}
    host = torch.empty(_LINK_BYTES, dtype=torch.uint8).pin_memory()
    target = torch.empty(_LINK_BYTES, dtype=torch.uint8, device="cuda")
    link = _LINK_BYTES / time_us([lambda: target.copy_(host, non_blocking=True)]) * 1e6
    return Device(flops_per_s, copy_gb_per_s() * 1e9, link)


def _product(dtype: Any) -> float:
    """FLOP/s of a large square product of one type."""
    import torch

    from benchmarks.bench_cuda import time_us

    a = torch.ones((_SIDE, _SIDE), dtype=dtype, device="cuda")
    multiply = torch._int_mm if dtype is torch.int8 else torch.mm
    return 2 * _SIDE**3 / time_us([lambda: multiply(a, a)]) * 1e6


def table(document: dict[str, Any]) -> str:
    """Markdown: one line per precision and batch, and what failed."""
    lines = [f"{document['model']} on {document['gpu']}, {document['tensorrt']}", ""]
    for precision, row in document["precisions"].items():
        found = row.get("times")
        failures = [f"{name}: {value['error']}" for name, value in row.items() if "error" in value]
        lines += [f"{precision}: {failure}" for failure in failures]
        if isinstance(found, list):
            keys = list(found[0])
            lines += ["| precision | " + " | ".join(keys) + " |", "|" + "---|" * (len(keys) + 1)]
            lines += [f"| {precision} | " + " | ".join(str(one[key]) for key in keys) + " |" for one in found]
    return "\n".join(lines)


def main(given: list[str]) -> int:
    """Measure, print, write; 0 where every step of every precision passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_plans", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    options = parser.parse_args(given)
    if (why := tensorrt.why_not()) is not None:
        print(f"bench_plans: expected a machine where plans run ({why}); run it on a GPU machine", file=sys.stderr)
        return 2
    bundle, device, found = bundles.read(options.bundle), gpu(), library.find()
    assert device is not None
    options.out.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "_" for c in f"{device.name}_{options.bundle.resolve().name}".lower())
    report = Report(options.out / f"plans_{name}.json")
    report.document |= {
        "question": "plans on a GPU",
        "environment": stamp(),
        "gpu": f"{device.name}, driver {device.driver}",
        "tensorrt": f"{found.name} {found.version}",
        "model": bundle.manifest.model,
        "method": bundle.manifest.method,
    }
    measure(bundle, report)
    print(table(report.document))
    print(report.path)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
