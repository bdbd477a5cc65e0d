"""Does the calibrated threshold hold its false-alarm target on good pictures that training never saw?

The good pictures are cut into contiguous blocks, because neighbours in name order are often the same part. Each
re-split sets some blocks aside for testing, fits and calibrates on the rest exactly as `engine train` does, and counts
the rejected ones among those set aside. The pooled count is held against the 95 % interval of the beta-binomial law
that a threshold with this many calibration pictures follows when it keeps its promise: too few false alarms fail too.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, data_sets
from engine import bundle as bundles
from engine.decide import calibrated_score
from trainers.base import DEFAULT_TARGET_FPR
from trainers.calibration.thresholds import Split, resplit_check
from trainers.dataset import resized
from trainers.dataset.good import Pictures, Selection, blocks, read_dataset
from trainers.dataset.resized import Resized
from trainers.network import gaussian
from trainers.network.features import Extractor, Features
from trainers.network.gaussian import Recipe
from trainers.progress import Progress, RecordedProgress, on_stderr

QUESTION = "false_alarms"
RESPLITS = 20
_BLOCKS = 20
_TEST_BLOCKS = 4


class CachedExtractor(Extractor):
    """An extractor that ran once over all pictures and gives the features of some of them again."""

    def __init__(self, path: Path, threads: int, pictures: Resized, progress: Progress) -> None:
        super().__init__(path, threads)
        self._all = super().of(pictures, progress)

    def of(self, pictures: Selection, progress: Progress) -> Features:
        """See `Extractor.of`; `pictures` is a subset of those it began with."""
        return self._all.at(pictures.rows)


def answer(context: Context) -> Answer:
    """Re-split every data set."""
    sets = data_sets(context)
    splits = [_resplits(context, data) for data in sets]
    rows = [_row(data.name, each) for data, each in zip(sets, splits, strict=True)]
    return Answer(QUESTION, {"resplits": RESPLITS, "data": [*rows, _row("all together", list(chain(*splits)))]})


def _resplits(context: Context, data: DataSet) -> list[Split]:
    progress = on_stderr()
    bundle = bundles.read(bundle_of(context, data))
    manifest = bundle.manifest
    dataset = read_dataset(data.path)
    good = [*dataset.train, *(item for item in dataset.test if item.defect is None)]
    pictures = resized.read(Pictures(good), manifest.input.height, progress)
    network = bundle.file(bundle.executable("fp32").network)
    extractor = CachedExtractor(network, context.threads, pictures, progress)
    recipe = Recipe.of(bundle, DEFAULT_TARGET_FPR)
    splits = []
    with progress.task(f"{data.name}: re-splits", RESPLITS) as task:
        for number in range(RESPLITS):
            splits.append(_resplit(extractor, pictures, recipe, number))
            task.advance(note=f"{splits[-1].false_alarms} of {splits[-1].n_test}")
    return splits


def _row(name: str, splits: list[Split]) -> Document:
    check = resplit_check(splits, DEFAULT_TARGET_FPR)
    return {
        "name": name,
        "target_fpr": check.target_fpr,
        "n_test": check.n_test,
        "false_alarms": check.false_alarms,
        "rate": check.rate,
        "interval": check.interval,
        "passed": check.passed,
        "splits": [asdict(split) for split in splits],
    }


def _resplit(extractor: CachedExtractor, pictures: Resized, recipe: Recipe, seed: int) -> Split:
    """Set four of twenty blocks aside, fit and calibrate on the rest, count the false alarms."""
    parts = blocks(len(pictures), _BLOCKS)
    chosen = np.random.default_rng(seed).choice(_BLOCKS, _TEST_BLOCKS, replace=False)
    test = np.concatenate([parts[i] for i in sorted(chosen)])
    rest = np.setdiff1d(np.arange(len(pictures)), test)
    silent = RecordedProgress()
    fitted = gaussian.fit(extractor, gaussian.split(pictures.subset(rest)), recipe, silent)
    unseen = extractor.of(pictures.subset(test), silent)
    scores = np.concatenate([fitted.detector.judge(part)[0] for part in unseen.batches()])
    alarms = sum(calibrated_score(float(score), fitted.calibration) >= 0.5 for score in scores)
    return Split(fitted.calibration.image_estimate.n_images, len(test), alarms)


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        "| data | judged | target | false alarms | rate | 95 % interval if the target is held | held |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["data"]:
        low, high = (f"{100 * value:.2f} %" for value in row["interval"])
        held = "yes" if row["passed"] else "no"
        lines.append(
            f"| {row['name']} | {row['n_test']} | {100 * row['target_fpr']:g} % "
            f"| {row['false_alarms']} | {100 * row['rate']:.2f} % | {low} to {high} | {held} |"
        )
    return "\n".join(lines)
