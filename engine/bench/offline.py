"""A backend alone: `python -m engine.bench.offline BUNDLE PICTURES BACKEND PRECISION BATCH THREADS` is its process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np

from engine import bundle as bundles
from engine.bench.report import OfflineRun, Setup
from engine.bench.worker import Document, Worker, serve_requests
from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import EngineError
from engine.images import read_image
from engine.producer.sources import picture_files
from engine.serving.base import Predictor
from engine.serving.select import Local, open_local
from engine.sheet import Sheet
from engine.types import U8

_WARMUP_BATCHES = 3


def backend_worker(bundle: Bundle, folder: Path, setup: Setup) -> Worker:
    """A process that measures the backend alone; each request is {"seconds": s}, each report {"fps", "cpu_ms"}."""
    arguments = [str(bundle.path), str(folder), setup.backend, setup.precision, str(setup.batch), str(setup.threads)]
    return Worker([sys.executable, "-m", "engine.bench.offline", *arguments])


def measure(bundle: Bundle, folder: Path, setup: Setup, seconds: float, rounds: int) -> OfflineRun:
    """The median frames/s over rounds of `seconds`."""
    with backend_worker(bundle, folder, setup) as worker:
        return OfflineRun(setup, median(worker.measure(seconds=seconds)["fps"] for _ in range(rounds)))


def segment(predictor: Predictor, batches: Iterator[list[U8]], sheet: Sheet, seconds: float) -> Document:
    """Frames/s, and CPU ms of a frame, of resize + predict (network, map, score) over batches of decoded pictures."""
    frames = 0
    started, cpu_started = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < seconds:
        batch = next(batches)
        predictor.predict(np.stack([sheet.fit(image) for image in batch]))
        frames += len(batch)
    return {"fps": frames / elapsed, "cpu_ms": 1e3 * (time.process_time() - cpu_started) / frames}


def batches_of(images: list[U8], size: int) -> Iterator[list[U8]]:
    """Endless batches of pictures in turn."""
    endless = cycle(images)
    while True:
        yield list(islice(endless, size))


def main(arguments: list[str]) -> None:
    """The child's side."""
    path, folder, backend, precision, batch, threads = arguments
    bundle = bundles.read(path)
    predictor = open_local(bundle, cast(Local, backend), cast(Precision, precision), int(threads))
    images = [read_image(file) for file in picture_files(Path(folder))]
    batches = batches_of(images, int(batch))
    for _ in range(_WARMUP_BATCHES):
        predictor.predict(np.stack([bundle.sheet.fit(image) for image in next(batches)]))

    def work(request: Document) -> Document:
        return segment(predictor, batches, bundle.sheet, request["seconds"])

    serve_requests(work)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EngineError as error:
        sys.exit(f"engine.bench.offline: {error}")
