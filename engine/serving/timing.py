"""`python -m engine.serving.timing BUNDLE PRECISION BACKEND THREADS BATCH`: frames/s of one backend, on stdout.

Of a tiled bundle one picture at a time: its tiles are a batch already.
"""

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
    """Median frames/s over repeated batches within a time budget, at least one, after a warm-up that is no longer."""
    end = time.perf_counter() + budget_s
    for _ in range(_WARMUP):
        predictor.predict(images)
        if time.perf_counter() > end:
            break
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or not times:
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
    shape = (1 if bundle.tiled else int(batch_size), size.height, size.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    print(frames_per_s(predictor, images))


if __name__ == "__main__":
    main(sys.argv[1:])
