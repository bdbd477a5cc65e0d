"""What a bundle keeps of its good pictures for a line to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from engine import cascade as cascades
from engine.appearance import NAMES
from engine.bundle import Bundle
from engine.cascade import Limit
from engine.contract import Precision
from engine.errors import BundleError
from engine.types import F64

SCORE = "score"
SIGNALS = (SCORE, *NAMES)


@dataclass(frozen=True, slots=True)
class Reference:
    """Of each of SIGNALS the values of good pictures, (n,) ascending; of scores held-out ones, see
    `trainers.calibration.record`.

    `size` is the (height, width) px at which the pictures were looked at.
    """

    signals: Mapping[str, F64]
    size: tuple[int, int]


def read(bundle: Bundle, precision: Precision, limit: Limit | None) -> Reference | None:
    """The reference of a bundle; None where it was trained before there were any.

    An ensemble's pictures are those of its first member, its scores those of the frames that its cascade rests on; with
    a cascade's `limit` a frame that exits has the first member's score. Raises BundleError where a file is damaged.
    """
    source = next(iter(bundle.members.values()), bundle)
    file = source.executable(precision).reference
    if file is None:
        return None
    try:
        found = load_file(source.file(file))
        signals = {name: np.sort(found[name].astype(np.float64)) for name in SIGNALS}
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{source.file(file)}: not a training reference ({error}); train again") from error
    if bundle.members:
        signals[SCORE] = np.sort(_fused(bundle, precision, limit))
    return Reference(signals, source.sheet.sizes[0])


def _fused(bundle: Bundle, precision: Precision, limit: Limit | None) -> F64:
    """(n,) scores of good frames as the ensemble is served."""
    good = cascades.read(bundle.file(bundle.ensemble(precision).frames))["good"]
    if limit is None:
        return good.fused
    return np.where(good.first <= limit.surprise, good.first, good.fused)
