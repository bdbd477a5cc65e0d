"""Does a factor stored in 16 bits change what a trained detector says of real pictures?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, data_sets
from engine import bundle as bundles
from engine.bundle import Bundle
from engine.contract import FEATURES_NAME
from engine.images import resize
from engine.maps import MapHead
from engine.serving.onnx import OnnxNetwork
from engine.types import F64
from kernels import Gaussian, Storage, mahalanobis_map
from trainers.dataset.good import Item, Pictures, read_dataset
from trainers.evaluation.metrics import image_auroc

QUESTION = "storage"
_STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "float16")
_BATCH = 8


def answer(context: Context) -> Answer:
    """Score the test pictures of every set by its default bundle, once per storage of the factor."""
    return Answer(QUESTION, {"data": [_measure(context, data) for data in data_sets(context)]})


def _measure(context: Context, data: DataSet) -> Document:
    bundle = bundles.read(bundle_of(context, data))
    gaussian = bundle.executable("fp32").gaussian
    if gaussian is None:
        raise ValueError(f"{bundle.path}: has no Gaussian to store")
    exact = Gaussian.load(bundle.file(gaussian))
    models = {storage: exact.astype(storage) for storage in _STORAGES}
    items = read_dataset(data.path).judged
    scores = _scores(bundle, models, items, context.threads)
    good = np.array([item.defect is None for item in items])
    return {
        "name": data.name,
        "megabytes": {name: round(model.nbytes / 1e6, 1) for name, model in models.items()},
        "image_AUROC": {name: image_auroc(found[good], found[~good]) for name, found in scores.items()},
        "largest_change": {name: _change(scores["float32"], found) for name, found in scores.items()},
    }


def _scores(
    bundle: Bundle, models: Mapping[Storage, Gaussian], items: Sequence[Item], threads: int
) -> Mapping[Storage, F64]:
    """Raw scores of the pictures by each model, all from the same features."""
    manifest = bundle.manifest
    height, width = manifest.input.height, manifest.input.width
    head = MapHead(manifest.grid, height, width, manifest.smoothing_sigma_px)
    network = OnnxNetwork(bundle.file(bundle.executable("fp32").network), threads)
    files = Pictures(items)
    rows: list[Mapping[Storage, F64]] = []
    for start in range(0, len(items), _BATCH):
        images = [resize(files[i], height, width) for i in range(start, min(start + _BATCH, len(items)))]
        features = network.run(np.stack(images))[FEATURES_NAME]
        rows.append({name: head(mahalanobis_map(features, model))[0] for name, model in models.items()})
    network.close()
    return {name: np.concatenate([row[name] for row in rows]) for name in models}


def _change(exact: F64, found: F64) -> float:
    """The largest change of a raw score, as a share of it."""
    return float(np.max(np.abs(found - exact) / exact))


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        "| data | factor stored as | MB | image AUROC | largest change of a score |",
        "|---|---|---|---|---|",
    ]
    for row in document["data"]:
        for name, auroc in row["image_AUROC"].items():
            change = f"{row['largest_change'][name]:.1e}" if name != "float32" else "-"
            lines.append(f"| {row['name']} | {name} | {row['megabytes'][name]} | {auroc:.4f} | {change} |")
    return "\n".join(lines)
