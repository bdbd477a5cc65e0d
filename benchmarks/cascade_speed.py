"""Frames/s of an ensemble with its cascade and without, in turn on the same frames, so that both see the same load."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.harness import Document
from engine.bundle import Bundle
from engine.cascade import DEFECT_SHARE
from engine.config import Runtime
from engine.serving.base import RawBatch
from engine.serving.ensemble import Cascade, Ensemble
from engine.serving.select import open_cascade, open_local
from engine.types import U8
from trainers.dataset.good import Item, Pictures

_FRAMES, _BATCH, _ROUNDS = 200, 8, 5


def cascade_speed(bundle: Bundle, good: list[Item], defective: list[Item], threads: int) -> Document:
    """Of decoded and resized frames, defective ones as often as the reported mean cost assumes; medians of rounds."""
    ensemble = open_local(bundle, "onnx", "fp32", threads)
    assert isinstance(ensemble, Ensemble)
    cascade = open_cascade(bundle, ensemble, Runtime(), bundle.calibration("fp32"))
    frames = _frames(bundle, good, defective)
    rounds = []
    for _ in range(_ROUNDS + 1):  # the first warms up
        full = _fps(lambda: _in_batches(ensemble.predict, frames))
        rounds.append((full, full if cascade is None else _fps(lambda: _screened(cascade, frames))))
    ensemble.close()
    return {
        "full_fps": median(full for full, _ in rounds[1:]),
        "cascade_fps": median(screened for _, screened in rounds[1:]),
        "speedup": median(screened / full for full, screened in rounds[1:]),
    }


def _frames(bundle: Bundle, good: list[Item], defective: list[Item]) -> U8:
    """(n, ...) sheets in random order; pictures come again where there are too few."""
    random = np.random.default_rng(0)
    n_bad = round(DEFECT_SHARE * _FRAMES)
    chosen = [*_some(good, _FRAMES - n_bad, random), *_some(defective, n_bad, random)]
    pictures = Pictures([chosen[i] for i in random.permutation(len(chosen))])
    return np.stack([bundle.sheet.fit(pictures[i]) for i in range(len(pictures))])


def _some(items: list[Item], count: int, random: np.random.Generator) -> list[Item]:
    return [items[i % len(items)] for i in random.permutation(max(count, len(items)))[:count]]


def _in_batches(run: Callable[[U8], object], frames: U8) -> None:
    for start in range(0, len(frames), _BATCH):
        run(frames[start : start + _BATCH])


def _screened(cascade: Cascade, frames: U8) -> None:
    """Frames that do not exit are put into batches again, as the pipeline does."""
    images, first = [], []
    for start in range(0, len(frames), _BATCH):
        batch = frames[start : start + _BATCH]
        found = cascade.screen(batch)
        images.append(batch[~found.exits])
        first.append(found.raw.at(~found.exits))
    waiting, known = np.concatenate(images), RawBatch.joined(first)
    for start in range(0, len(waiting), _BATCH):
        rows = slice(start, start + _BATCH)
        cascade.complete(waiting[rows], known.at(rows))


def _fps(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return _FRAMES / (time.perf_counter() - started)
