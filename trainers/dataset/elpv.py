"""The solar cells of the PyPI package `elpv-dataset` as a folder in MVTec AD layout.

2,624 electroluminescence pictures of 300 x 300 px, with a defect probability and a cell type each (Deitsch et al.;
CC BY-NC-SA 4.0: for demonstration and measurement, not for commercial use). One-class protocol: good = probability 0,
defective = probability 1, the others left out; mono- and polycrystalline cells apart; 70 % of the good ones for
training, names sorted and then shuffled with random.Random(0). The set has no masks.
"""

from __future__ import annotations

import random
from importlib import resources
from pathlib import Path
from typing import Literal

from engine.errors import MissingExtraError

Kind = Literal["mono", "poly"]
LICENCE = "elpv-dataset, CC BY-NC-SA 4.0"
_TRAIN_SHARE = 0.7


def lay_out(folder: Path, kind: Kind) -> Path:
    """Fill `folder` with links: train/good, test/good, test/defective; returns it.

    Raises MissingExtraError where the package is not installed.
    """
    good, defective = _names(kind)
    random.Random(0).shuffle(good)
    cut = round(_TRAIN_SHARE * len(good))
    parts = {"train/good": good[:cut], "test/good": good[cut:], "test/defective": defective}
    source = _source()
    for part, names in parts.items():
        target = folder / part
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            link = target / Path(name).name
            link.unlink(missing_ok=True)
            link.symlink_to(source / name)
    return folder


def _names(kind: Kind) -> tuple[list[str], list[str]]:
    """Sorted file names of the good and of the defective cells."""
    rows = [line.split() for line in (_source() / "labels.csv").read_text().splitlines()]
    of_kind = [(name, float(probability)) for name, probability, type_ in rows if type_ == kind]
    return sorted(n for n, p in of_kind if p == 0), sorted(n for n, p in of_kind if p == 1)


def _source() -> Path:
    try:
        package = resources.files("elpv_dataset")
    except ModuleNotFoundError:
        raise MissingExtraError("the demo's pictures (elpv-dataset)", "demo") from None
    return Path(str(package)) / "data"
