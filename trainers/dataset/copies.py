"""The copies of a dataset that protocols train and judge on, by the names that tables have for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from trainers.base import AS_GIVEN
from trainers.dataset.disturb import write_disturbed
from trainers.dataset.good import Dataset
from trainers.dataset.subsets import write_contaminated, write_outliers, write_small
from trainers.progress import Progress

# Fills a folder with a copy of a dataset, by a seed, and returns where it is.
Copy = Callable[[Dataset, Path, int, Progress], Path]

_SHARE = re.compile(r"(\d+(?:\.\d+)?) %( contaminated| outliers|)")


def copy_named(name: str) -> Copy:
    """`as given`, `colour`, `spatial`, `20 %`, `5 % contaminated`, `5 % outliers`; raises ValueError for another."""
    if name == AS_GIVEN:
        return lambda dataset, folder, seed, progress: dataset.path
    if name in ("colour", "spatial"):
        return lambda dataset, folder, seed, progress: write_disturbed(dataset, name, folder, seed, progress)
    found = _SHARE.fullmatch(name)
    if found is None:
        raise ValueError(f"a copy named {name!r} is not known")
    share = float(found[1]) / 100
    write = {"": write_small, " contaminated": write_contaminated, " outliers": write_outliers}[found[2]]
    return lambda dataset, folder, seed, progress: write(dataset, share, folder, seed)


def at_ratio(text: str, ratio: float) -> str:
    """A copy's name, or a label with one in it, with another share of bad pictures among the training ones."""
    return re.sub(r"\d+(?:\.\d+)? %(?= contaminated| outliers)", f"{100 * ratio:g} %", text)
