"""How fast is the Mahalanobis map beside what others use for it, and how near to the speed of memory?

`python -m benchmarks.bench_mahalanobis` prints a table and writes benchmarks/results/mahalanobis.json. In every round
the contenders run one after the other on the same features, so that what else the machine does meets them all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.contenders import AnomalibStep, Contender, Plain, fit_plain, others, ours
from benchmarks.harness import RESULTS, Answer, Document
from engine.types import F32
from kernels.machine import BEST, thread_count

QUESTION = "mahalanobis"
SAMPLES = 200
BATCHES = (1, 8)
ROUNDS = 11
BUDGET_S = 10.0  # of one contender; it stops early then, but not before three rounds
_REST_S = 0.05
_PEER_BYTES = 1 << 29  # larger models are not handed to the peer's process


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


@dataclass(frozen=True, slots=True)
class Machine:
    """Threads to use, the measured copy bandwidth, and the peer's interpreter where there is one."""

    threads: int
    copy_gb_per_s: float
    anomalib: str | None


CASES = (Case(28, 28, 176), Case(56, 56, 100), Case(56, 56, 448))


def answer(
    threads: int = 0, cases: tuple[Case, ...] = CASES, anomalib: Path | None = None, rounds: int = ROUNDS
) -> Answer:
    """Measure every case."""
    threads = thread_count(threads)
    torch.set_num_threads(threads)
    peer = None if anomalib is None else str((anomalib / "bin" / "python").absolute())
    machine = Machine(threads, copy_gb_per_s(threads), peer)
    rows = [row for case in cases for row in _measure(case, machine, rounds)]
    head: Document = {"threads": threads, "instruction_set": BEST, "training_pictures": SAMPLES}
    return Answer(QUESTION, head | {"copy_gb_per_s": round(machine.copy_gb_per_s, 2), "rows": rows})


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


def _measure(case: Case, machine: Machine, rounds: int) -> list[Document]:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((SAMPLES, case.channels, case.h, case.w), np.float32)
    model = fit_plain(train)
    local = [*ours(train, machine.threads), *others(model, (case.h, case.w), machine.threads)]
    del train
    rows: list[Document] = []
    for batch in BATCHES:
        features = rng.standard_normal((batch, case.channels, case.h, case.w), np.float32)
        with ExitStack() as stack:
            contenders: list[Contender] = [*local, *_peers(stack, machine, model, features)]
            _agree(contenders, features)
            times = _paired(contenders, features, rounds)
        best = min(float(np.median(t)) for t in times)
        for contender, spent in zip(contenders, times, strict=True):
            rows.append({"case": case.name, "batch": batch} | _row(contender, spent, features, machine, best))
    return rows


def _peers(stack: ExitStack, machine: Machine, model: Plain, features: F32) -> list[Contender]:
    if machine.anomalib is None or model.inverse.nbytes > _PEER_BYTES:
        return []
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return [stack.enter_context(closing(AnomalibStep(machine.anomalib, folder, model, features, machine.threads)))]


def _agree(contenders: list[Contender], features: F32) -> None:
    """Contenders of full rank give the same numbers; this is the first warm-up as well."""
    expected = contenders[0].distances(features)
    for contender in contenders[1:]:
        got = contender.distances(features)
        if "rank" not in contender.name:
            np.testing.assert_allclose(got, expected, rtol=2e-2)


def _paired(contenders: list[Contender], features: F32, rounds: int) -> list[list[float]]:
    """Seconds of every round of every contender, after a warm-up round.

    BLAS and OpenMP threads spin for a while after their work, on the next contender's cores: each starts after a rest.
    """
    times: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds + 1):
        for contender, spent in zip(contenders, times, strict=True):
            if len(spent) >= 3 and sum(spent) > BUDGET_S:
                continue
            time.sleep(_REST_S)
            taken_s = contender.seconds(features)
            if number:
                spent.append(taken_s)
    return times


def _row(contender: Contender, times: list[float], features: F32, machine: Machine, best: float) -> Document:
    median = float(np.median(times))
    moved = contender.model_bytes + features.nbytes + features.nbytes // features.shape[1]
    return {
        "contender": contender.name,
        "model_mb": round(contender.model_bytes / 1e6, 1),
        "median_ms": round(median * 1e3, 2),
        "p99_ms": round(float(np.quantile(times, 0.99)) * 1e3, 2),
        "gb_per_s": round(moved / median / 1e9, 2),
        "of_copy": round(moved / median / 1e9 / machine.copy_gb_per_s, 2),
        "times_the_fastest": round(median / best, 2),
    }


def main(arguments: list[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_mahalanobis", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--anomalib", type=Path, help="the peer's environment, made by peers/anomalib/setup.sh")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    options = parser.parse_args(arguments)
    found = answer(options.threads, anomalib=options.anomalib)
    print(table(found.document))
    print(found.write(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
