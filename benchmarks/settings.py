"""Which settings of the plain Gaussian are best, judged without a single test label?

A fifth of the good training pictures (whole blocks of neighbours) is held out. How much is added to the diagonal of the
covariance is decided by the likelihood of these under the Gaussians of the others, as shrinkage of a covariance is: no
defect of any kind is needed for that. Averaging and smoothing, which change what is modelled, are decided by the AUROC
between the held-out pictures and copies of them with synthetic defects (`trainers.dataset.synthetic`), the mean over
eight kinds of defect. Both are means over the data sets. Every trial is recorded; `error` is the bootstrap error, over
pictures, of its AUROC's difference to the best.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets
from engine.contract import FEATURES_NAME
from engine.images import resize
from engine.maps import MapHead
from engine.types import F32, F64, U8
from kernels import Accumulator, mahalanobis_map
from trainers import backbones
from trainers.calibration.holdout import Split, hold_out
from trainers.dataset import resized
from trainers.dataset.good import Pictures, read_dataset
from trainers.dataset.synthetic import KINDS, every_kind
from trainers.fyd.model import Network, pick_channels
from trainers.fyd.settings import Settings
from trainers.network import gaussian
from trainers.network.export import export_onnx
from trainers.network.features import BATCH, Extractor
from trainers.progress import Progress, on_stderr

QUESTION = "settings"
POOLING = (1, 3, 5)
REGULARISATION = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOOTHING_PX = (2.0, 3.0, 4.0, 6.0)
_BOOTSTRAPS = 500
_SHOWN = 12

Key = tuple[float, int, float]  # regularisation, averaging and smoothing


@dataclass(frozen=True, slots=True)
class Trial:
    """On one data set: the mean log-likelihood of a held-out picture's feature, without its constant, and how often
    (n, n) the copies of a held-out picture, the columns, score above another."""

    likelihood: float
    above: F64


def answer(context: Context) -> Answer:
    """Try every combination on every data set."""
    sets = data_sets(context)
    found = [dict(_trials(context, data)) for data in sets]
    drawn = {key: _bootstrapped([each[key].above for each in found]) for key in found[0]}
    aurocs = {key: [float(each[key].above.mean()) for each in found] for key in found[0]}
    likelihoods = {key: mean(each[key].likelihood for each in found) for key in found[0]}
    keys = sorted(aurocs, key=lambda key: -mean(aurocs[key]))
    chosen = _chosen(keys, likelihoods)
    trials = [
        dict(zip(("regularisation", "pooling", "smoothing_sigma_px"), key, strict=True))
        | {"AUROC": {data.name: round(value, 4) for data, value in zip(sets, aurocs[key], strict=True)}}
        | {"mean": round(mean(aurocs[key]), 4), "error": round(float(np.std(drawn[keys[0]] - drawn[key])), 4)}
        | {"log_likelihood": round(likelihoods[key], 4), "chosen": key == chosen}
        for key in keys
    ]
    return Answer(QUESTION, {"defects": KINDS, "trials": trials})


def _chosen(keys: Sequence[Key], likelihoods: Mapping[Key, float]) -> Key:
    """Of `keys`, the best by AUROC first, the first one whose regularisation is the likeliest for its averaging."""
    return next(key for key in keys if likelihoods[key] == max(likelihoods[k] for k in keys if k[1] == key[1]))


def _bootstrapped(above: Sequence[F64]) -> F64:
    """(B,) means over the data sets of the AUROC, over draws of pictures that are the same in every trial."""
    drawn = []
    for each in above:
        n = len(each)
        weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_BOOTSTRAPS) / n  # (B, n)
        drawn.append(((weights @ each) * weights).sum(axis=1))
    means: F64 = np.mean(drawn, axis=0)
    return means


def _trials(context: Context, data: DataSet) -> Iterator[tuple[Key, Trial]]:
    """Each combination of settings."""
    progress = on_stderr()
    settings, pictures = Settings(), Pictures(read_dataset(data.path).train)
    split = hold_out(resized.read(pictures, settings.side_px, progress))
    copies = _copies(pictures, split, settings.side_px, progress)
    for pooling in POOLING:
        progress.say(f"{data.name}: {pooling} x {pooling} averaging")
        extractor = _extractor(replace(settings, pooling=pooling), context.threads)
        for regularisation, log_det, grids in _distances(extractor, split, copies, progress):
            squared = np.square(grids[: len(split.held_out)], dtype=np.float64).mean()
            likelihood = -float(squared + log_det) / (2 * extractor.channels)
            for sigma_px in SMOOTHING_PX:
                scores = MapHead(extractor.grid, extractor.height, extractor.width, sigma_px)(grids)[0]
                yield (regularisation, pooling, sigma_px), Trial(likelihood, _above(scores, len(split.held_out)))


def _above(scores: F64, n: int) -> F64:
    """(n, n): the share of a picture's copies that score above a good picture, ties counting half."""
    good, bad = scores[:n, None, None], scores[n:].reshape(1, n, len(KINDS))
    shares: F64 = ((bad > good) + 0.5 * (bad == good)).mean(axis=2)
    return shares


def _copies(pictures: Pictures, split: Split, side_px: int, progress: Progress) -> U8:
    """Every held-out picture with every kind of synthetic defect, (n * d, H, W, 3)."""
    rows = split.held_out.rows.tolist()
    made = np.empty((len(rows) * len(KINDS), side_px, side_px, 3), np.uint8)
    with progress.task("synthetic defects", len(rows)) as task:
        for i, row in enumerate(rows):
            for kind, copy in enumerate(every_kind(pictures[row], row)):
                made[i * len(KINDS) + kind] = resize(copy, side_px, side_px)
            task.advance()
    return made


def _extractor(settings: Settings, threads: int) -> Extractor:
    backbone = backbones.load(settings.backbone, settings.side_px, allow_download=False)
    network = Network(backbone, settings, pick_channels(backbone, settings.channels, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(network, path, settings.side_px, (FEATURES_NAME,))
        return Extractor(path, threads)


def _distances(
    extractor: Extractor, split: Split, copies: U8, progress: Progress
) -> Iterator[tuple[float, float, F32]]:
    """For each regularisation the mean over positions of the covariance's log-determinant, and the distances (n, h, w)
    of the held-out pictures and then of their copies."""
    total = Accumulator(extractor.channels, *extractor.grid)
    for batch in extractor.of(split.training, progress).batches():
        total.add(batch.values)
    judged = [batch.values for batch in extractor.of(split.held_out, progress).batches()]
    judged += [extractor(copies[i : i + BATCH]).values for i in range(0, len(copies), BATCH)]
    for regularisation in REGULARISATION:
        with threadpool_limits(1):
            eps = gaussian.diagonal(total, regularisation)
            model, log_det = total.fit(eps), _log_det(total, eps)
        grids = [mahalanobis_map(features, model, threads=extractor.threads) for features in judged]
        yield regularisation, log_det, np.concatenate(grids)


def _log_det(total: Accumulator, eps: F64) -> float:
    """The mean over positions of log det (S + diag(eps))."""
    covariances = (total.moments(at).covariance() + np.diag(eps) for at in total.chunks())
    roots = (np.linalg.cholesky(each, upper=True) for each in covariances)  # (p, C, C)
    return float(2 * np.mean([np.log(np.diag(root)).sum() for each in roots for root in each]))


def table(document: Document) -> str:
    """Markdown: the best trials, and the chosen and the default wherever they stand."""
    names, default = list(document["trials"][0]["AUROC"]), Settings()
    columns = ("averaging", "regularisation", "smoothing px", "likelihood", "mean", "below the best", *names)
    lines = [f"| rank of {len(document['trials'])} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    best = document["trials"][0]["mean"]
    for rank, trial in enumerate(document["trials"], 1):
        averaging, *others = (trial[name] for name in ("pooling", "regularisation", "smoothing_sigma_px"))
        is_default = [averaging, *others] == [default.pooling, default.regularisation, default.smoothing_sigma_px]
        marks = [mark for mark, holds in (("chosen", trial["chosen"]), ("default", is_default)) if holds]
        if rank <= _SHOWN or marks:
            cells = [", ".join([str(rank), *marks]), f"{averaging} x {averaging}", *(f"{value:g}" for value in others)]
            cells += [f"{trial['log_likelihood']:.3f}", f"{trial['mean']:.4f}"]
            cells.append(f"{best - trial['mean']:.4f} ± {trial['error']:.4f}")
            cells += [f"{trial['AUROC'][name]:.3f}" for name in names]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
