"""How fast is the Mahalanobis map beside NumPy and a batched matrix product of torch, and how near to the memory?

`python -m benchmarks.bench_mahalanobis` prints a table and writes benchmarks/results/mahalanobis.json. In every round
the contenders run one after the other on the same features, so that what else the machine does meets them all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kernels
from benchmarks.harness import RESULTS, Answer, Document
from kernels.machine import BEST, thread_count

QUESTION = "mahalanobis"
EPS = 0.01
SAMPLES = 200
BATCHES = (1, 8)
ROUNDS = 11
BUDGET_S = 10.0  # of one contender; it stops early then, but not before three rounds
PAUSE_S = 0.02  # torch's threads go on spinning for a while

Map = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A grid of Gaussians."""

    h: int
    w: int
    channels: int

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.h}x{self.w}x{self.channels}"


CASES = (Case(28, 28, 176), Case(56, 56, 100), Case(56, 56, 448))


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to compute the map, and the bytes of the model that it reads."""

    name: str
    model_bytes: int
    run: Map


def answer(threads: int = 0, cases: tuple[Case, ...] = CASES) -> Answer:
    """Measure every case."""
    threads = thread_count(threads)
    torch.set_num_threads(threads)
    bandwidth = copy_gb_per_s(threads)
    rows = [row for case in cases for row in _measure(case, threads, bandwidth)]
    head: Document = {"threads": threads, "instruction_set": BEST, "training_pictures": SAMPLES}
    return Answer(QUESTION, head | {"copy_gb_per_s": round(bandwidth, 2), "rows": rows})


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        f"{document['threads']} threads, {document['instruction_set']}, copy {document['copy_gb_per_s']} GB/s",
        "",
        "| case | batch | contender | model MB | median ms | p99 ms | GB/s | of copy | slower |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in document["rows"]]
    return "\n".join(lines)


def copy_gb_per_s(threads: int, size_bytes: int = 256 << 20) -> float:
    """Bytes read and written per second by threads that copy separate arrays much larger than the caches."""
    sources = [np.ones(size_bytes // threads // 8) for _ in range(threads)]
    targets = [np.empty_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as pool:
        times = []
        for _ in range(12):
            started = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            times.append(time.perf_counter() - started)
    return 2 * size_bytes / float(np.median(times[2:])) / 1e9


def _measure(case: Case, threads: int, bandwidth: float) -> list[Document]:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((SAMPLES, case.channels, case.h, case.w), np.float32)
    contenders = [*_ours(train, threads), *_others(train)]
    del train
    rows = []
    for batch in BATCHES:
        features = rng.standard_normal((batch, case.channels, case.h, case.w), np.float32)
        _agree(contenders, features)
        times = _paired(contenders, features)
        best = min(float(np.median(t)) for t in times)
        rows += [_row(case, batch, c, t, features, bandwidth, best) for c, t in zip(contenders, times, strict=True)]
    return rows


def _ours(train: np.ndarray[Any, Any], threads: int) -> list[Contender]:
    triangular = kernels.fit(train, EPS, factorisation="triangular", threads=threads)
    models = {
        "kernel": triangular,
        "kernel, float16 factor": triangular.astype("float16"),
        "kernel, rank 64": kernels.fit(train, EPS, rank=64, threads=threads),
    }

    def contender(name: str, model: kernels.Gaussian) -> Contender:
        return Contender(name, model.nbytes, lambda x: kernels.mahalanobis_map(x, model, threads=threads))

    return [contender(name, model) for name, model in models.items()]


def _others(train: np.ndarray[Any, Any]) -> list[Contender]:
    """The Cholesky factor's product by torch, and the inverse covariance's quadratic form by NumPy, as is usual."""
    samples, channels, h, w = train.shape
    mean = torch.from_numpy(train.mean(axis=0).reshape(channels, -1).T.copy())  # (P, C)
    inverse_root = torch.empty(h * w, channels, channels)
    inverse = np.empty((h * w, channels, channels), np.float32)
    for p in range(0, h * w, 64):
        x = torch.from_numpy(train.reshape(samples, channels, -1)[:, :, p : p + 64]).permute(2, 0, 1)
        x = x - mean[p : p + 64, None]
        sigma = x.transpose(1, 2) @ x / (samples - 1) + EPS * torch.eye(channels)
        factor = torch.linalg.cholesky(sigma)
        root = torch.linalg.solve_triangular(factor, torch.eye(channels), upper=False)
        inverse_root[p : p + 64] = root
        inverse[p : p + 64] = root.transpose(1, 2) @ root

    def bmm(features: np.ndarray[Any, Any]) -> Any:
        y = torch.from_numpy(features).flatten(2).permute(2, 1, 0) - mean[:, :, None]  # (P, C, N)
        return torch.bmm(inverse_root, y).square_().sum(1).sqrt_().T.reshape(-1, h, w).numpy()

    def einsum(features: np.ndarray[Any, Any]) -> Any:
        y = features.reshape(len(features), channels, -1).transpose(2, 0, 1) - mean.numpy()[:, None]  # (P, N, C)
        product = np.einsum("pnc,pcd->pnd", y, inverse, optimize=True)
        return np.sqrt(np.einsum("pnd,pnd->np", product, y)).reshape(-1, h, w)

    return [Contender("torch.bmm", inverse_root.nbytes, bmm), Contender("NumPy einsum", inverse.nbytes, einsum)]


def _agree(contenders: list[Contender], features: np.ndarray[Any, Any]) -> None:
    """Contenders of full rank give the same numbers; this is the first warm-up as well."""
    expected = contenders[0].run(features)
    for contender in contenders[1:]:
        got = contender.run(features)
        if "rank" not in contender.name:
            np.testing.assert_allclose(got, expected, rtol=1e-2)


def _paired(contenders: list[Contender], features: np.ndarray[Any, Any]) -> list[list[float]]:
    """Seconds of every round of every contender, after a warm-up round."""
    times: list[list[float]] = [[] for _ in contenders]
    for number in range(ROUNDS + 1):
        for contender, spent in zip(contenders, times, strict=True):
            if len(spent) >= 3 and sum(spent) > BUDGET_S:
                continue
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            contender.run(features)
            if number:
                spent.append(time.perf_counter() - started)
    return times


def _row(
    case: Case,
    batch: int,
    contender: Contender,
    times: list[float],
    features: np.ndarray[Any, Any],
    bandwidth: float,
    best: float,
) -> Document:
    median = float(np.median(times))
    moved = contender.model_bytes + features.nbytes + batch * case.h * case.w * 4
    return {
        "case": case.name,
        "batch": batch,
        "contender": contender.name,
        "model_mb": round(contender.model_bytes / 1e6, 1),
        "median_ms": round(median * 1e3, 2),
        "p99_ms": round(float(np.quantile(times, 0.99)) * 1e3, 2),
        "gb_per_s": round(moved / median / 1e9, 2),
        "of_copy": round(moved / median / 1e9 / bandwidth, 2),
        "times_the_fastest": round(median / best, 2),
    }


def main(arguments: list[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_mahalanobis", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    options = parser.parse_args(arguments)
    found = answer(options.threads)
    print(table(found.document))
    print(found.write(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
