"""The copies of a dataset that protocols train and judge on, by the names that tables have for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainers.base import AS_GIVEN
from trainers.data import Dataset
from trainers.disturb import write_disturbed
from trainers.progress import Progress
from trainers.subsets import write_contaminated, write_small

Copy = Callable[[Dataset, Path, int, Progress], Path]


def _as_given(dataset: Dataset, folder: Path, seed: int, progress: Progress) -> Path:
    return dataset.path


def _disturbed(kind: str) -> Copy:
    return lambda dataset, folder, seed, progress: write_disturbed(dataset, kind, folder, seed, progress)


def _small(share: float) -> Copy:
    return lambda dataset, folder, seed, progress: write_small(dataset, share, folder, seed)


def _contaminated(share: float) -> Copy:
    return lambda dataset, folder, seed, progress: write_contaminated(dataset, share, folder, seed)


# Each fills a folder and returns where the copy is.
COPIES: dict[str, Copy] = {
    AS_GIVEN: _as_given,
    "colour": _disturbed("colour"),
    "spatial": _disturbed("spatial"),
    "20 %": _small(0.2),
    "60 %": _small(0.6),
    "1 % contaminated": _contaminated(0.01),
    "5 % contaminated": _contaminated(0.05),
    "10 % contaminated": _contaminated(0.1),
}
