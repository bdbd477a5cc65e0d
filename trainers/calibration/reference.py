"""What a bundle keeps of its good pictures for serving to compare a line with (`engine.drift`): looks and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engine.appearance import NAMES, appearance
from engine.bundle import describe
from engine.contract import File, Precision
from engine.types import F64
from trainers.calibration.holdout import HeldOut, Split

_MOST = 1000  # pictures; more would hardly sharpen the comparison with a window of some hundreds


def write(folder: Path, precision: Precision, pictures: Split, held_out: HeldOut) -> File:
    """Write the file: of the good pictures, at the network's size, what `appearance` says, and the held-out scores.

    What a picture looks like was not fitted to, so pictures that were trained on say it as well as others.
    """
    path = folder / f"reference.{precision}.safetensors"
    whole = pictures.training.subset(_spread(len(pictures.training)))
    others = pictures.held_out.subset(_spread(len(pictures.held_out)))
    looks = np.array([appearance(part[i]) for part in (whole, others) for i in range(len(part))])  # (n, 4)
    scores: F64 = held_out.scores[_spread(len(held_out.scores))]
    columns = {name: np.ascontiguousarray(looks[:, i]) for i, name in enumerate(NAMES)}
    save_file({"score": scores, **columns}, path)
    return describe(path, folder)


def _spread(n: int) -> list[int]:
    """At most so many of n, evenly spread."""
    return [int(row) for row in np.linspace(0, n - 1, min(n, _MOST)).round()]
