"""Which settings of the plain Gaussian are best, judged without a single test label?

A fifth of the good training pictures (whole blocks of neighbours) is held out. The criterion is the AUROC between them
and copies of them with synthetic defects: a patch deformed, or replaced by another place of the picture (Figure 4 of
SSAE). Every trial is recorded; the table shows the best by the mean over the data sets, and the default's place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets
from engine.contract import FEATURES_NAME
from engine.maps import MapHead
from engine.types import F32, U8
from kernels import Accumulator, mahalanobis_map
from trainers import backbones
from trainers.calibration.holdout import Split, hold_out
from trainers.dataset import resized
from trainers.dataset.good import Pictures, read_dataset
from trainers.fyd.model import Network, pick_channels
from trainers.fyd.settings import Settings
from trainers.network import gaussian
from trainers.network.export import export_onnx
from trainers.network.features import BATCH, Extractor
from trainers.progress import Progress, on_stderr
from trainers.ssae.corrupt import Corruption, Kind

QUESTION = "settings"
DEFECTS: tuple[Kind, ...] = ("elastic", "swap")
POOLING = (1, 3, 5)
REGULARISATION = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOOTHING_PX = (2.0, 3.0, 4.0, 6.0)
_SIDES = (0.08, 0.25)  # of a defect's patch, as shares of the picture's
_SHOWN = 12


def answer(context: Context) -> Answer:
    """Try every combination on every data set."""
    sets = data_sets(context)
    found = [dict(_trials(context, data)) for data in sets]
    trials = [
        dict(zip(("pooling", "regularisation", "smoothing_sigma_px"), key, strict=True))
        | {"AUROC": {data.name: round(each[key], 4) for data, each in zip(sets, found, strict=True)}}
        | {"mean": round(mean(each[key] for each in found), 4)}
        for key in product(POOLING, REGULARISATION, SMOOTHING_PX)
    ]
    return Answer(QUESTION, {"defects": DEFECTS, "trials": sorted(trials, key=lambda trial: -trial["mean"])})


Key = tuple[int, float, float]


def _trials(context: Context, data: DataSet) -> Iterator[tuple[Key, float]]:
    progress = on_stderr()
    settings = Settings()
    split = hold_out(resized.read(Pictures(read_dataset(data.path).train), settings.side_px, progress))
    defective = _defective(split.held_out.take(range(len(split.held_out))))
    for pooling in POOLING:
        progress.say(f"{data.name}: {pooling} x {pooling} averaging")
        extractor = _extractor(replace(settings, pooling=pooling), context.threads)
        for regularisation, grids in _distances(extractor, split, defective, progress):
            for sigma_px in SMOOTHING_PX:
                scores = MapHead(extractor.grid, extractor.height, extractor.width, sigma_px)(grids)[0]
                truth = np.arange(len(scores)) >= len(split.held_out)
                yield (pooling, regularisation, sigma_px), float(roc_auc_score(truth, scores))


def _defective(good: U8) -> U8:
    """Good pictures (n, H, W, 3) with a synthetic defect each, one kind after the other."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.from_numpy(good).permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
    made = [Corruption(kind, patches=1, sides=_SIDES)(pictures, generator).corrupted for kind in DEFECTS]
    defective: U8 = (255 * torch.cat(made)).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return defective


def _extractor(settings: Settings, threads: int) -> Extractor:
    backbone = backbones.load(settings.backbone, settings.side_px, allow_download=False)
    network = Network(backbone, settings, pick_channels(backbone, settings.channels, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(network, path, settings.side_px, (FEATURES_NAME,))
        return Extractor(path, threads)


def _distances(extractor: Extractor, split: Split, defective: U8, progress: Progress) -> Iterator[tuple[float, F32]]:
    """For each regularisation the distances (n, h, w) of the held-out pictures and then of the defective ones."""
    total = Accumulator(extractor.channels, *extractor.grid)
    for batch in extractor.of(split.training, progress).batches():
        total.add(batch.values)
    judged = [batch.values for batch in extractor.of(split.held_out, progress).batches()]
    judged += [extractor(defective[i : i + BATCH]).values for i in range(0, len(defective), BATCH)]
    for regularisation in REGULARISATION:
        with threadpool_limits(1):
            model = total.fit(gaussian.diagonal(total, regularisation))
        yield regularisation, np.concatenate([mahalanobis_map(x, model, threads=extractor.threads) for x in judged])


def table(document: Document) -> str:
    """Markdown: the best trials, and the default wherever it stands."""
    names = list(document["trials"][0]["AUROC"])
    default = Settings()
    lines = [
        f"| rank of {len(document['trials'])} | averaging | regularisation | smoothing px | mean | "
        + " | ".join(names)
        + " |",
        "|---" * (5 + len(names)) + "|",
    ]
    for rank, trial in enumerate(document["trials"], 1):
        key = (trial["pooling"], trial["regularisation"], trial["smoothing_sigma_px"])
        chosen = key == (default.pooling, default.regularisation, default.smoothing_sigma_px)
        if rank <= _SHOWN or chosen:
            values = " | ".join(f"{trial['AUROC'][name]:.3f}" for name in names)
            lines.append(
                f"| {rank}{' (default)' if chosen else ''} | {key[0]} x {key[0]} | {key[1]:g} | {key[2]:g} "
                f"| {trial['mean']:.4f} | {values} |"
            )
    return "\n".join(lines)
