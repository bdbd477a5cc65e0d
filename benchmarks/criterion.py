"""How well a bundle tells defects apart by the criterion that looks at no label: by synthetic ones."""

from __future__ import annotations

from pathlib import Path

from engine import bundle as bundles
from engine.serving.select import open_local
from trainers.calibration import record
from trainers.dataset.good import check_training, read_dataset
from trainers.ensemble.copies import Served, evenly, judged
from trainers.evaluation.metrics import image_auroc
from trainers.progress import on_stderr

PICTURES = 25  # held-out ones at most, evenly spread, each with every kind of defect


def criterion(folder: Path, data: Path, threads: int) -> float:
    """AUROC between the raw scores of all held-out pictures and those of copies of some of them.

    With equally many copies of every kind it is the mean over the kinds (`trainers.dataset.synthetic`). `data` is what
    the bundle was trained on; neither side has been learnt from.
    """
    bundle, training = bundles.read(folder), check_training(read_dataset(data))
    held_out = record.read(bundle, "fp32")
    rows = evenly(training.rows_of(held_out.contents), PICTURES)
    predictor = open_local(bundle, "onnx", "fp32", threads)
    try:
        member = Served(bundle, "fp32", predictor.predict)
        scores = judged([member], training, rows, threads, on_stderr())
    finally:
        predictor.close()
    auroc = image_auroc(held_out.scores, scores.ravel())
    assert auroc is not None
    return auroc
