"""What do tiles gain on pictures larger than the network? Trays of parts: pictures of a data set pasted side by side.

A tray of 3 x 4 pictures of 256 px is one picture of 768 x 1024 px, and defective where one of its parts is. A good part
lies on one training tray only; trays to judge are laid out of the few good test pictures, so they share good parts,
while each defective part lies on one tray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.harness import Answer, Context, DataSet, Document, engine
from engine.images import resize
from engine.types import U8
from trainers.dataset.good import Pictures, read_dataset, read_mask
from trainers.dataset.layouts import Item

QUESTION = "tiling"
TRAY = (3, 4)
PART_PX = 256
GOOD_TRAYS = 40
DEFECTIVE_TRAYS = 60  # at most
WAYS: dict[str, tuple[str, ...]] = {
    "whole, 224 px": (),
    "tiles of 256 px": ("--tile", "256"),
}
_METRICS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "false_alarm_rate", "n_good", "n_defect")


def answer(context: Context) -> Answer:
    """Lay out the trays of every folder given, train on them in every way and judge."""
    data = [DataSet(path.name, path) for path in context.data]
    document = {"tray": TRAY, "part_px": PART_PX, "data": [_measure(context, each) for each in data]}
    return Answer(QUESTION, document)


def _measure(context: Context, data: DataSet) -> Document:
    trays = context.folder(f"{data.name}-trays")
    n = lay_out(data.path, trays)
    return {"name": data.name, "n_training": n, "rows": [_row(context, data.name, trays, way) for way in WAYS]}


def _row(context: Context, name: str, trays: Path, way: str) -> Document:
    bundle = context.folder("bundles") / f"{name}-{way.replace(' ', '-').replace(',', '')}"
    report = engine("train", trays, "--out", bundle, "--threads", context.threads, *WAYS[way])
    found = engine("eval", bundle, trays, "--backend", "onnx", "--threads", context.threads)
    rejected = sum(row["recall"] * row["n"] for row in found["per_defect"].values())
    return {
        "way": way,
        "train_s": round(report["train_s"], 1),
        "target_fpr": found["target_fpr"],
        **{metric: found[metric] for metric in _METRICS},
        "recall": rejected / found["n_defect"],
    }


def lay_out(source: Path, out: Path) -> int:
    """Write the trays in MVTec AD layout; returns the number of training ones."""
    dataset, rng, parts = read_dataset(source), np.random.default_rng(0), TRAY[0] * TRAY[1]
    good = [item for item in dataset.test if item.defect is None]
    defective = [item for item in dataset.test if item.defect is not None]
    kept = np.linspace(0, len(defective) - 1, min(len(defective), DEFECTIVE_TRAYS)).round().astype(int)
    training = list(_dealt(dataset.train, parts))
    for i, items in enumerate(training):
        _write(out / "train/good" / f"{i:03}.png", _pasted(_read(items)))
    for i in range(GOOD_TRAYS):
        _write(out / "test/good" / f"{i:03}.png", _pasted(_read(_drawn(good, parts, rng))))
    for i in kept:
        place, item = int(rng.integers(parts)), defective[i]
        others = _drawn(good, parts - 1, rng)
        _write(
            out / "test" / str(item.defect) / f"{i:03}.png", _pasted(_read([*others[:place], item, *others[place:]]))
        )
        if item.mask is not None:
            masks = np.zeros((parts, PART_PX, PART_PX, 3), np.uint8)
            masks[place][read_mask(item.mask, PART_PX, PART_PX)] = 255
            _write(out / "ground_truth" / str(item.defect) / f"{i:03}_mask.png", _pasted(masks))
    return len(training)


def _dealt(items: Sequence[Item], parts: int) -> Iterator[list[Item]]:
    """Neighbours stay together, for they are often the same part."""
    for start in range(0, len(items) - parts + 1, parts):
        yield list(items[start : start + parts])


def _drawn(items: Sequence[Item], n: int, rng: np.random.Generator) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))[:n]]


def _read(items: Sequence[Item]) -> U8:
    """(n, PART_PX, PART_PX, 3)."""
    pictures = Pictures(items)
    return np.stack([resize(pictures[i], PART_PX, PART_PX) for i in range(len(items))])


def _pasted(parts: U8) -> npt.NDArray[np.uint8]:
    """(n, p, p, 3) -> (rows * p, columns * p, 3)."""
    rows, columns = TRAY
    return parts.reshape(rows, columns, PART_PX, PART_PX, 3).swapaxes(1, 2).reshape(rows * PART_PX, -1, 3)


def _write(path: Path, image: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        "| trays of | the network sees | image AUROC | pixel AUROC | AUPRO | defects rejected "
        "| false alarms (target) |",
        "|---|---|---|---|---|---|---|",
    ]
    for data in document["data"]:
        for row in data["rows"]:
            numbers = (row[name] for name in ("image_AUROC", "pixel_AUROC", "pixel_AUPRO"))
            alarms = f"{100 * row['false_alarm_rate']:.1f} % ({100 * row['target_fpr']:g} %) of {row['n_good']}"
            lines.append(
                f"| {data['name']} | {row['way']} | {' | '.join(f'{number:.3f}' for number in numbers)} "
                f"| {100 * row['recall']:.0f} % | {alarms} |"
            )
    return "\n".join(lines)
