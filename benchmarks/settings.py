"""Which settings of the plain Gaussian are best, judged without a single test label?

Good training pictures are judged by folds, contiguous blocks of neighbours as in calibration, each by the Gaussian of
all others. The criterion is the AUROC between them and copies of some of them with synthetic defects
(`trainers.dataset.synthetic`), the mean over eight kinds of defect and over the data sets. Every trial is recorded.
Chosen is the most regular of those that lie within one standard error of the best (Breiman et al. 1984; Hastie et al.,
The Elements of Statistical Learning, 7.10): the error is that of the difference to the best on the same pictures, by
bootstrap over pictures; most regular is the largest regularisation, then the widest averaging, then the widest
smoothing. The rule was written down before its choice was known.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets
from engine.contract import FEATURES_NAME
from engine.images import resize
from engine.maps import MapHead
from engine.types import F32, F64
from trainers import backbones
from trainers.base import DEFAULT_TARGET_FPR
from trainers.calibration.holdout import Split
from trainers.dataset import resized
from trainers.dataset.good import Pictures, blocks, read_dataset
from trainers.dataset.resized import Resized
from trainers.dataset.synthetic import KINDS, every_kind
from trainers.fyd.model import Network, pick_channels
from trainers.fyd.settings import Settings
from trainers.network import gaussian
from trainers.network.export import export_onnx
from trainers.network.features import Extractor
from trainers.progress import Progress, on_stderr

QUESTION = "settings"
POOLING = (1, 3, 5)
REGULARISATION = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOOTHING_PX = (2.0, 3.0, 4.0, 6.0)
FOLDS = 5
_COPIED = 100  # pictures at most
_BOOTSTRAPS = 500
_SHOWN = 12

Rows = npt.NDArray[np.intp]
Key = tuple[float, int, float]  # regularisation, averaging and smoothing; the greater, the more regular


def answer(context: Context) -> Answer:
    """Try every combination on every data set."""
    sets = data_sets(context)
    found = [dict(_trials(context, data)) for data in sets]
    drawn = {key: _bootstrapped([each[key] for each in found]) for key in found[0]}
    aurocs = {key: [float(each[key].above.mean()) for each in found] for key in found[0]}
    keys = sorted(aurocs, key=lambda key: -mean(aurocs[key]))
    errors = {key: float(np.std(drawn[keys[0]] - drawn[key])) for key in keys}
    near = [key for key in keys if mean(aurocs[keys[0]]) - mean(aurocs[key]) <= errors[key]]
    trials = [
        dict(zip(("regularisation", "pooling", "smoothing_sigma_px"), key, strict=True))
        | {"AUROC": {data.name: round(value, 4) for data, value in zip(sets, aurocs[key], strict=True)}}
        | {"mean": round(mean(aurocs[key]), 4), "error": round(errors[key], 4), "chosen": key == max(near)}
        for key in keys
    ]
    return Answer(QUESTION, {"defects": KINDS, "trials": trials})


@dataclass(frozen=True, slots=True)
class Judged:
    """How often (n, k) the copies of some pictures, `rows` (k,), score above each of n good ones."""

    above: F64
    rows: Rows

    def auroc(self, weights: F64) -> F64:
        """(B,) with B weights of each picture, (B, n)."""
        copied = weights[:, self.rows]
        found: F64 = ((weights @ self.above) * copied).sum(axis=1) / weights.sum(axis=1) / copied.sum(axis=1)
        return found


def _bootstrapped(found: Sequence[Judged]) -> F64:
    """(B,) means over the data sets of the AUROC, over draws of pictures that are the same in every trial."""
    drawn = []
    for each in found:
        n = len(each.above)
        drawn.append(each.auroc(np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_BOOTSTRAPS) / n))
    means: F64 = np.mean(drawn, axis=0)
    return means


def _trials(context: Context, data: DataSet) -> Iterator[tuple[Key, Judged]]:
    """Each combination of settings on one data set."""
    progress = on_stderr()
    settings, source = Settings(), Pictures(read_dataset(data.path).train)
    pictures = resized.read(source, settings.side_px, progress)
    rows = np.linspace(0, len(pictures) - 1, min(_COPIED, len(pictures))).round().astype(np.intp)
    copies = _copies(source, rows, settings.side_px, progress)
    for pooling in POOLING:
        progress.say(f"{data.name}: {pooling} x {pooling} averaging")
        extractor = _extractor(replace(settings, pooling=pooling), context.threads)
        for regularisation, good, bad in _distances(extractor, pictures, copies, rows, progress):
            for sigma_px in SMOOTHING_PX:
                head = MapHead(extractor.grid, extractor.height, extractor.width, sigma_px)
                yield (regularisation, pooling, sigma_px), Judged(_above(head(good)[0], head(bad)[0]), rows)


def _above(good: F64, bad: F64) -> F64:
    """(n, k): the share of a picture's copies, (k * d,) in all, that score above a good picture, ties counting half."""
    copies = bad.reshape(1, -1, len(KINDS))
    shares: F64 = ((copies > good[:, None, None]) + 0.5 * (copies == good[:, None, None])).mean(axis=2)
    return shares


def _copies(source: Pictures, rows: Rows, side_px: int, progress: Progress) -> Resized:
    """Some pictures with every kind of synthetic defect, (k * d, H, W, 3)."""
    made = resized.on_disc((len(rows) * len(KINDS), side_px, side_px, 3))
    with progress.task("synthetic defects", len(rows)) as task:
        for i, row in enumerate(rows.tolist()):
            for kind, copy in enumerate(every_kind(source[row], row)):
                made[i * len(KINDS) + kind] = resize(copy, side_px, side_px)
            task.advance()
    return Resized(made, np.arange(len(made)))


def _extractor(settings: Settings, threads: int) -> Extractor:
    backbone = backbones.load(settings.backbone, settings.side_px, allow_download=False)
    network = Network(backbone, settings, pick_channels(backbone, settings.channels, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(network, path, settings.side_px, (FEATURES_NAME,))
        return Extractor(path, threads)


def _distances(
    extractor: Extractor, pictures: Resized, copies: Resized, rows: Rows, progress: Progress
) -> Iterator[tuple[float, F32, F32]]:
    """For each regularisation the distances of the pictures (n, h, w) and of the copies (k * d, h, w), by folds."""
    recipe = gaussian.Recipe(REGULARISATION[0], SMOOTHING_PX[0], DEFAULT_TARGET_FPR)
    folds = gaussian.folds_of(extractor, Split(pictures, pictures.subset([])), recipe, progress)
    copied = extractor.of(copies, progress)
    owners = np.repeat(rows, len(KINDS))
    for regularisation in REGULARISATION:
        with threadpool_limits(1):
            these = replace(folds, eps=gaussian.diagonal(folds.total, regularisation))
        good, bad = (np.empty((len(each), *extractor.grid), np.float32) for each in (pictures, copies))
        for part in blocks(len(pictures), FOLDS):
            detector, of_part = these.without(part), np.flatnonzero(np.isin(owners, part))
            good[part] = detector.grids(folds.features.at(part))
            bad[of_part] = detector.grids(copied.at(of_part))
        yield regularisation, good, bad


def table(document: Document) -> str:
    """Markdown: the best trials, and the chosen and the default wherever they stand."""
    names = list(document["trials"][0]["AUROC"])
    default = Settings()
    lines = [
        f"| rank of {len(document['trials'])} | averaging | regularisation | smoothing px | mean | below the best | "
        + " | ".join(names)
        + " |",
        "|---" * (6 + len(names)) + "|",
    ]
    best = document["trials"][0]["mean"]
    for rank, trial in enumerate(document["trials"], 1):
        averaging, *others = (trial[name] for name in ("pooling", "regularisation", "smoothing_sigma_px"))
        is_default = [averaging, *others] == [default.pooling, default.regularisation, default.smoothing_sigma_px]
        marks = [mark for mark, holds in (("chosen", trial["chosen"]), ("default", is_default)) if holds]
        if rank <= _SHOWN or marks:
            values = " | ".join(f"{trial['AUROC'][name]:.3f}" for name in names)
            lines.append(
                f"| {', '.join([str(rank), *marks])} | {averaging} x {averaging} | {others[0]:g} | {others[1]:g} "
                f"| {trial['mean']:.4f} | {best - trial['mean']:.4f} ± {trial['error']:.4f} | {values} |"
            )
    return "\n".join(lines)
