"""How members' surprises become one score and one map. Pure functions of arrays.

A surprise is -log of a tail probability under good pictures (`engine.contract.Tail`), so members of any kind are on one
scale: under good pictures each is about exponential with mean 1. Their mean is Fisher's statistic up to a factor; the
correction for correlated members (Brown 1975) is another factor and other degrees of freedom, strictly increasing in
it. As the fused score is calibrated itself on held-out pictures, whose correlation it thus has, mean, Fisher's and
Brown's combination give the same verdicts: there is one rule for the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.contract import Rule
from engine.types import F32

Real = TypeVar("Real", np.float32, np.float64)


def fuse(surprises: Sequence[npt.NDArray[Real]], weights: Sequence[float], rule: Rule) -> npt.NDArray[Real]:
    """Surprises of M members, arrays of one shape -> the fused one; weights count in a mean only, up to a factor."""
    fused: npt.NDArray[Real]
    if rule == "max":
        fused = np.maximum.reduce(surprises)
        return fused
    total = sum(weights)
    fused = surprises[0] * surprises[0].dtype.type(weights[0] / total)
    for each, weight in zip(surprises[1:], weights[1:], strict=True):
        fused += each * each.dtype.type(weight / total)
    return fused


def resized(maps: F32, size: tuple[int, int]) -> F32:
    """(N, H, W) -> (N, height, width), bilinear."""
    height, width = size
    if maps.shape[1:] == size:
        return maps
    import cv2  # only here: what measures networks alone does without it

    each = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in maps]
    return np.asarray(each, np.float32).reshape(-1, height, width)
