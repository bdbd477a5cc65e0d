"""`python -m engine.serving.timing BUNDLE PRECISION BACKEND THREADS BATCH`: frames/s of one backend, on stdout."""

from __future__ import annotations

import statistics
import sys
import time
from typing import cast

import numpy as np

from engine import bundle as bundles
from engine.contract import Precision
from engine.serving.base import Predictor
from engine.serving.select import Local, open_local
from engine.types import U8

_WARMUP = 3
_BUDGET_S = 1.5


def frames_per_s(predictor: Predictor, images: U8, budget_s: float = _BUDGET_S) -> float:
    """Median frames/s over repeated batches within a time budget, after a warm-up."""
    for _ in range(_WARMUP):
        predictor.predict(images)
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        predictor.predict(images)
        times.append(time.perf_counter() - start)
    return len(images) / statistics.median(times)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    path, precision, backend, threads, batch_size = arguments
    bundle = bundles.read(path)
    predictor = open_local(bundle, cast(Local, backend), cast(Precision, precision), int(threads))
    size = bundle.sheet
    shape = (int(batch_size), size.height, size.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    print(frames_per_s(predictor, images))


if __name__ == "__main__":
    main(sys.argv[1:])
