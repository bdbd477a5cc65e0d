"""Copies of a dataset with fewer training pictures, or with defective ones among them (IGD, Tables 6 and 7).

Pictures are linked, not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import DataError
from trainers.data import Dataset, Item


def write_small(dataset: Dataset, share: float, folder: Path, seed: int) -> Path:
    """A random share of the training pictures, and all test pictures, in MVTec AD layout; returns `folder`."""
    count = max(1, round(share * len(dataset.train)))
    kept = [dataset.train[i] for i in sorted(_random(seed).permutation(len(dataset.train))[:count])]
    return _write(folder, kept, dataset.test)


def write_contaminated(dataset: Dataset, share: float, folder: Path, seed: int) -> Path:
    """A random share of the defective test pictures is taken out of the test set and trained on as good ones.

    Raises DataError where there are no defective pictures.
    """
    defective = [i for i, item in enumerate(dataset.test) if item.defect is not None]
    if not defective:
        raise DataError(f"{dataset.path}: no defective test pictures to contaminate the training set with; add some")
    count = max(1, round(share * len(defective)))
    moved = {defective[i] for i in _random(seed).permutation(len(defective))[:count]}
    injected = [dataset.test[i] for i in sorted(moved)]
    left = [item for i, item in enumerate(dataset.test) if i not in moved]
    return _write(folder, [*dataset.train, *injected], left)


def _write(folder: Path, train: Sequence[Item], test: Sequence[Item]) -> Path:
    for item in train:
        _link(folder / "train" / "good" / _name(item), item.path)
    for item in test:
        defect = item.defect or "good"
        _link(folder / "test" / defect / _name(item), item.path)
        if item.mask is not None:
            stem = Path(_name(item)).stem
            _link(folder / "ground_truth" / defect / f"{stem}_mask{item.mask.suffix}", item.mask)
    return folder


def _name(item: Item) -> str:
    """A file name that no other item has."""
    return "-".join(Path(item.name).parts)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target.resolve())


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0x1D])
