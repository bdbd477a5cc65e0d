"""Copies of a dataset with fewer training pictures, or with defective ones among them (IGD, Tables 6 and 7; DROC,
Figures 9 to 11).

Pictures are linked, not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import DataError
from trainers.dataset.good import Dataset, Item

SPARE = "spare"  # a folder that training and judging do not look at


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


def write_outliers(dataset: Dataset, share: float, folder: Path, seed: int) -> Path:
    """Bad pictures make up a share of the training ones: spare ones of `labelled.write_one_class`, all test pictures
    staying; where there are none, defective test pictures, taken out of the test set.

    Raises DataError where there are not enough of them.
    """
    spare = [Item(path.relative_to(dataset.path).as_posix(), path) for path in spare_pictures(dataset.path)]
    bad = spare or [item for item in dataset.test if item.defect is not None]
    count = max(1, round(share / (1 - share) * len(dataset.train)))
    if count > len(bad):
        raise DataError(
            f"{dataset.path}: {100 * share:g} % outliers among {len(dataset.train)} good pictures need {count} bad "
            f"ones, got {len(bad)}; lower the ratio"
        )
    moved = [bad[i] for i in sorted(_random(seed).permutation(len(bad))[:count])]
    left = [item for item in dataset.test if item not in moved]
    return _write(folder, [*dataset.train, *moved], left)


def spare_pictures(folder: Path) -> list[Path]:
    """Training pictures of the other classes, beside one-class data."""
    return sorted((folder / SPARE).rglob("*.png"))


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
