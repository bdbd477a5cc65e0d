"""How far does the difference from the mean good picture get? What every method that reconstructs has to beat.

The map is SSAE's with the mean of the good training pictures in place of the network's output: squared difference,
averaged over colours, smoothed; its maximum is the picture's score. Split, size and smoothing are SSAE's.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets
from engine.maps import MapHead
from engine.serving.base import RawBatch
from engine.sheet import Sheet
from engine.types import F32, F64, U8
from trainers.base import DEFAULT_TARGET_FPR
from trainers.calibration.holdout import HeldOut, hold_out
from trainers.dataset import resized
from trainers.dataset.good import Pictures, Selection, batches, read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.progress import on_stderr
from trainers.ssae import Settings

QUESTION = "mean_picture"
_BATCH = 8


class Difference:
    """The detector: pictures (N, side, side, 3) uint8 against the mean of the training ones."""

    def __init__(self, training: Selection, settings: Settings) -> None:
        side = settings.side_px
        total = np.zeros((side, side, 3))
        for images in batches(training, _BATCH, side, side):
            total += (images / 255).sum(axis=0)
        self.mean: F64 = total / len(training)
        self.head = MapHead((side, side), side, side, settings.smoothing_sigma_px)

    def grids(self, images: U8) -> F32:
        """(N, side, side)."""
        squared: F64 = (images / 255 - self.mean) ** 2
        return np.asarray(squared.mean(axis=3), np.float32)

    def predict(self, images: U8) -> RawBatch:
        """See `engine.serving.base.Predictor.predict`."""
        return RawBatch(*self.head(self.grids(images)))


def answer(context: Context) -> Answer:
    """Every data set in turn."""
    return Answer(QUESTION, {"data": [_measure(data) for data in data_sets(context)]})


def _measure(data: DataSet) -> Document:
    settings, progress, dataset = Settings(), on_stderr(), read_dataset(data.path)
    split = hold_out(resized.read(Pictures(dataset.train), settings.side_px, progress))
    detector = Difference(split.training, settings)
    held_out = HeldOut(detector.head)
    for images in batches(split.held_out, _BATCH, settings.side_px, settings.side_px):
        held_out.add(detector.grids(images))
    sheet = Sheet(((settings.side_px, settings.side_px),))
    judge = Judge(detector.predict, sheet, held_out.calibration(1, DEFAULT_TARGET_FPR))
    return {"name": data.name, "note": data.note} | asdict(evaluate(judge, dataset, progress).overall)


def table(document: Document) -> str:
    """Markdown."""
    lines = ["| data | image AUROC | pixel AUROC | AUPRO |", "|---|---|---|---|"]
    for row in document["data"]:
        values = (row[name] for name in ("image_auroc", "pixel_auroc", "pixel_aupro"))
        lines.append(f"| {row['name']} | " + " | ".join("-" if v is None else f"{v:.3f}" for v in values) + " |")
    return "\n".join(lines)
