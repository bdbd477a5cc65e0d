"""What a member of an ensemble is worth: how well it tells synthetic defects from the good pictures they are made on.

No label is needed; what the pictures and their copies score must come from models that have not seen them
(`trainers.ensemble.copies`).
"""

from __future__ import annotations

import numpy as np

from engine.types import F64
from trainers.evaluation.metrics import image_auroc

_LEAST = 0.01  # so that a member that tells nothing apart has next to no say


def weight(good: F64, copies: F64) -> float:
    """A member's weight: the AUROC above chance of its raw scores of defects, (k, d), against good pictures, (n,).

    With equally many copies of every kind it is the mean over the kinds.
    """
    auroc = image_auroc(good, copies.ravel())
    return max((auroc or 0.5) - 0.5, _LEAST)


def weights(good: F64, copies: F64) -> tuple[float, ...]:
    """Of M members, with the axis M before the others, and 1 on average."""
    each = np.array([weight(*member) for member in zip(good, copies, strict=True)])
    return tuple(map(float, each / each.mean()))
