"""What a bundle keeps of its calibration: each held-out picture's score and map by a model that had not seen it.

An ensemble is calibrated from these (`trainers.ensemble.fuse`): its members have seen the good pictures there are, so
scores that they gave now would look too good, and pictures that none of them has seen nobody has put aside. Pictures
are known by the SHA-256 of their files, so that members that held out different ones can be compared on those that all
did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine.bundle import Bundle, describe
from engine.contract import File, Precision
from engine.errors import BundleError
from engine.maps import MapHead
from engine.types import F32, F64
from trainers.calibration.holdout import HeldOut


@dataclass(frozen=True, slots=True)
class Record:
    """Of n held-out pictures: the hash of each, `scores` (n,) raw, `grids` (n, h, w) float16 of distances."""

    contents: tuple[str, ...]
    scores: F64
    grids: npt.NDArray[np.float16]
    head: MapHead

    def maps(self, row: int) -> F32:
        """(1, H, W) raw map of one of them, at the model's input size."""
        return self.head(self.grids[row : row + 1].astype(np.float32))[1]


def write(folder: Path, precision: Precision, held_out: HeldOut, contents: Sequence[str]) -> File:
    """Write the file; `contents` are the pictures' hashes in the order of their scores."""
    path = folder / f"held_out.{precision}.safetensors"
    if len(contents) != len(held_out.scores):
        raise ValueError(f"record: expected a hash for each score, got {len(contents)} for {len(held_out.scores)}")
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "pictures": np.array([list(bytes.fromhex(content)) for content in contents], np.uint8),  # (n, 32)
        "scores": held_out.scores,
        "grids": held_out.grids,
    }
    save_file(tensors, path)
    return describe(path, folder)


def read(bundle: Bundle, precision: Precision) -> Record:
    """The record of a bundle that has one; raises BundleError where the file is none."""
    file = bundle.executable(precision).held_out
    assert file is not None
    try:
        found = load_file(bundle.file(file))
        contents = tuple(row.tobytes().hex() for row in found["pictures"])
        return Record(contents, found["scores"], found["grids"], MapHead.of(bundle.manifest))
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{bundle.file(file)}: not a record of held-out scores ({error}); train again") from error
