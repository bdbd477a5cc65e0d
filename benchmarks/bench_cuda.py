"""How fast is the Mahalanobis map on this GPU beside cuBLAS, and how near to its memory?

`python -m benchmarks.bench_cuda` prints a table and writes benchmarks/results/mahalanobis_DEVICE.json; gpu.sh beside it
runs it with everything else that needs a GPU. It needs torch with CUDA and imports nothing of the engine.

Letters: N batch, C channels, P = h * w positions, R rank.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.cuda.arrays import stream_of, view
from kernels.cuda.driver import Device
from kernels.cuda.map import arguments, mahalanobis_map, plan
from kernels.cuda.model import DeviceGaussian
from kernels.layout import packed_values, row_values
from kernels.storage import Storage

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DTYPES: dict[Storage, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROUNDS = 15
ROUND_S = 0.02
CHECKED = 32  # positions whose distances are computed in float64

Run = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A grid of Gaussians, its factors stored in some format; triangular where the rank is 0."""

    h: int
    w: int
    channels: int
    storage: Storage
    rank: int = 0

    @property
    def positions(self) -> int:
        """P."""
        return self.h * self.w


CASES = tuple(
    Case(h, h, channels, storage, rank)
    for h, channels, rank in ((56, 100, 0), (28, 176, 0), (56, 448, 0), (56, 448, 64))
    for storage in ("float32", "bfloat16")
)
QUICK = tuple(
    Case(3, 7, channels, storage, rank) for channels, rank in ((20, 0), (100, 0), (100, 18)) for storage in DTYPES
)


@dataclass(frozen=True, slots=True)
class Row:
    """One case and batch. Bytes are the fewest that must move: factor, mean, features, distances."""

    grid: str
    channels: int
    rank: int
    storage: str
    batch: int
    kernel: str
    us: float
    gb_per_s: float
    of_copy: float
    gemm_us: float
    step_us: float
    gemm_over_kernel: float
    error: float


def packed_index(channels: int) -> npt.NDArray[np.int64]:
    """Where csrc/layout.hpp puts the values (i, j), j <= i, of a triangular factor; row-major over the triangle."""
    panels = -(-channels // 16)
    columns = np.array([channels - 16 * (panels - 1 - p) for p in range(panels)])
    full, half = np.maximum(columns - 8, 0), np.minimum(columns, 8)
    start = np.concatenate([[0], np.cumsum(full * 16 + half * 8)])
    i, j = np.tril_indices(channels)
    panel, row = np.divmod(i + 16 * panels - channels, 16)
    upper = start[panel] + j * 16 + row
    lower = start[panel] + full[panel] * 16 + (j - full[panel]) * 8 + row - 8
    return np.where(j < full[panel], upper, lower)


def pack(dense: Tensor) -> Tensor:
    """Lower triangular factors (P, C, C) -> (P, packed values)."""
    channels = dense.shape[1]
    i, j = np.tril_indices(channels)
    packed = dense.new_zeros(dense.shape[0], packed_values(channels))
    packed[:, torch.from_numpy(packed_index(channels)).to(dense.device)] = dense[:, i, j]
    return packed


@dataclass(frozen=True, slots=True)
class Model:
    """Random factors: dense for cuBLAS (P, C, C) or (P, R, C), as the kernel takes them, and means (h, w, C).

    A low-rank model has weights (P, R), and 1 for its tail and scale.
    """

    dense: Tensor
    factor: Tensor
    mean: Tensor
    weights: Tensor | None = None

    @classmethod
    def random(cls, case: Case, seed: int) -> Model:
        """Lower triangular, with a diagonal that keeps distances away from zero, or orthogonal rows."""
        draw = torch.Generator("cuda").manual_seed(seed)
        mean = torch.randn((case.h, case.w, case.channels), device="cuda", generator=draw)
        if case.rank:
            dense = rows(case, draw).to(DTYPES[case.storage])
            weights = torch.rand((case.positions, case.rank), device="cuda", generator=draw)
            return cls(dense, pad(dense, (0, row_values(case.channels) - case.channels)), mean, weights)
        shape = (case.positions, case.channels, case.channels)
        dense = torch.randn(shape, device="cuda", generator=draw).mul_(0.1).tril_()
        dense.diagonal(dim1=1, dim2=2).add_(1)
        dense = dense.to(DTYPES[case.storage])
        return cls(dense, pack(dense), mean)

    def on_device(self, case: Case) -> DeviceGaussian:
        """As the kernel takes it."""
        stream = stream_of(self.factor)
        mean, factor = view(self.mean, stream), view(self.factor, stream)
        if self.weights is None:
            return DeviceGaussian(mean, factor, case.storage)
        scale, tail = self.mean.new_ones(case.channels), self.mean.new_ones(case.positions)
        return DeviceGaussian(mean, factor, case.storage, *(view(x, stream) for x in (scale, self.weights, tail)))


def rows(case: Case, draw: torch.Generator) -> Tensor:
    """Orthogonal rows (P, R, C): of the identity, reflected twice."""
    reflected = torch.eye(case.rank, case.channels, device="cuda").expand(case.positions, -1, -1)
    for _ in range(2):
        axis = torch.randn((case.positions, case.channels, 1), device="cuda", generator=draw)
        axis /= axis.norm(dim=1, keepdim=True)
        reflected = reflected - 2 * torch.bmm(reflected, axis) * axis.mT
    return reflected


def wide(x: Tensor) -> Tensor:
    """At least float32, for squares and their sums."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squares(dense: Tensor, weights: Tensor | None, y: Tensor) -> Tensor:
    """Squared distances (P, N) by torch, of y (P, C, N): one batched product, or the two of the low-rank form."""
    z = torch.bmm(dense, y)
    if weights is None:
        return wide(z).square().sum(dim=1)
    rest = torch.baddbmm(y, dense.mT, z, alpha=-1)
    return torch.einsum("pr,prn->pn", weights, wide(z).square()) + wide(rest).square().sum(dim=1)


def step(model: Model, features: Tensor) -> Tensor:
    """The map by torch: subtract, batched products, norm. (N, C, h, w) -> (P, N)."""
    return squares(model.dense, model.weights, prepared(model, features)).sqrt_()


def multiply(model: Model, y: Tensor, z: Tensor, rest: Tensor) -> None:
    """Only the products of `step`, into z (P, C or R, N) and rest (P, C, N)."""
    torch.bmm(model.dense, y, out=z)
    if model.weights is not None:
        torch.baddbmm(y, model.dense.mT, z, alpha=-1, out=rest)


def prepared(model: Model, features: Tensor) -> Tensor:
    """Right-hand sides (P, C, N), contiguous, in the factor's format."""
    mean = model.mean.flatten(0, 1)  # (P, C)
    y = features.flatten(2).permute(2, 1, 0) - mean[:, :, None]
    return y.to(model.dense.dtype).contiguous()


def error(model: Model, features: Tensor, got: Tensor) -> float:
    """Largest relative error of distances (N, h, w) at some positions, against float64; NaN if any was not written."""
    at = torch.linspace(0, model.dense.shape[0] - 1, CHECKED, device="cuda").long()
    y = features.flatten(2).double().permute(2, 1, 0)[at] - model.mean.flatten(0, 1).double()[at][:, :, None]
    weights = None if model.weights is None else model.weights[at].double()
    expected = squares(model.dense[at].double(), weights, y).sqrt()  # (positions, N)
    relative = (got.flatten(1).T[at].double() / expected - 1).abs()
    return float("nan") if torch.isnan(got).any() else float(relative.max())


def time_us(runs: list[Run]) -> float:
    """Median time of one of the runs, which differ in their data so that no cache holds it; a graph leaves out gaps."""
    warm = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(warm):
        for run in runs * 2:
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for run in runs:
            run()
    once = _replay_s(graph, 2)
    count = max(1, int(ROUND_S / once))
    return float(np.median([_replay_s(graph, count) for _ in range(ROUNDS)])) / len(runs) * 1e6


def _replay_s(graph: torch.cuda.CUDAGraph, count: int) -> float:
    """Seconds of one replay."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(count):
        graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / count / 1e3


def copy_gb_per_s(size_bytes: int = 1 << 30) -> float:
    """Bytes read and written per second by a large copy on the device."""
    source = torch.randint(0, 255, (size_bytes,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size_bytes / time_us([lambda: target.copy_(source)]) / 1e3


def measure(case: Case, copy: float, batches: tuple[int, ...]) -> list[Row]:
    """All batches of a case, on enough models that none is in the cache when it is used again."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    first = Model.random(case, 0)
    count = max(2, -(-3 * cache // (first.factor.nbytes + 1)))
    models = [first, *(Model.random(case, seed) for seed in range(1, min(count, 8)))]
    return [_row(case, models, batch, copy) for batch in batches]


def _row(case: Case, models: list[Model], batch: int, copy: float) -> Row:
    shape = (batch, case.channels, case.h, case.w)
    features = [torch.randn(shape, device="cuda") for _ in models]
    ours = [model.on_device(case) for model in models]
    outs = [torch.full((batch, case.h, case.w), float("nan"), device="cuda") for _ in models]
    sides = [prepared(model, x) for model, x in zip(models, features, strict=True)]
    zs = [side.new_empty(case.positions, case.rank or case.channels, batch) for side in sides]
    rests = [torch.empty_like(side) for side in sides]
    off = 0.0
    for model, x, device_model, out in zip(models, features, ours, outs, strict=True):
        mahalanobis_map(x, device_model, out)
        off = float(np.maximum(off, error(model, x, out)))  # NaN stays
    everything = list(range(len(models)))
    us = time_us([_bound(mahalanobis_map, features[i], ours[i], outs[i]) for i in everything])
    gemm = time_us([_bound(multiply, models[i], sides[i], zs[i], rests[i]) for i in everything])
    whole = time_us([_bound(step, models[i], features[i]) for i in everything])
    moved = models[0].factor.nbytes + models[0].mean.nbytes + features[0].nbytes + outs[0].nbytes
    name = plan(Device.of(0), arguments(view(features[0], 1), ours[0], view(outs[0], 1)))[0]
    return Row(
        grid=f"{case.h}x{case.w}",
        channels=case.channels,
        rank=case.rank,
        storage=case.storage,
        batch=batch,
        kernel=name,
        us=round(us, 2),
        gb_per_s=round(moved / us / 1e3, 1),
        of_copy=round(moved / us / 1e3 / copy, 3),
        gemm_us=round(gemm, 2),
        step_us=round(whole, 2),
        gemm_over_kernel=round(gemm / us, 2),
        error=off,
    )


def _bound(function: Callable[..., Any], *given: Any) -> Run:
    return lambda: function(*given)


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    rows = document["rows"]
    head = f"{document['device']}, copy {document['copy_gb_per_s']} GB/s, torch {document['torch']}"
    lines = [head, "", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += [
        "| " + " | ".join(f"{value:.1e}" if key == "error" else str(value) for key, value in row.items()) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def answer(cases: tuple[Case, ...], batches: tuple[int, ...]) -> dict[str, Any]:
    """Measure the cases on device 0."""
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32, on both sides
    copy = copy_gb_per_s()
    rows = [asdict(row) for case in cases for row in measure(case, copy, batches)]
    return {
        "question": "mahalanobis on a GPU",
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "copy_gb_per_s": round(copy, 1),
        "rows": rows,
    }


def main(given: list[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_cuda", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--quick", action="store_true", help="small grids: whether everything runs, not how fast")
    options = parser.parse_args(given)
    if not torch.cuda.is_available():
        print(
            "bench_cuda: expected a CUDA device that torch can use, found none; run it on a GPU machine",
            file=sys.stderr,
        )
        return 2
    found = answer(QUICK, (1, 5, 40)) if options.quick else answer(CASES, BATCHES)
    print(table(found))
    options.out.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "_" for c in found["device"].lower())
    path = options.out / f"mahalanobis_{name}.json"
    path.write_text(json.dumps(found, indent=1, allow_nan=True) + "\n")
    print(path)
    return 0 if all(row["error"] < 1e-2 for row in found["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
