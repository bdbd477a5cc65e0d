"""The two training objectives: X the original picture, X^ its corrupted copy, F(X^) the output, M the mask.

All tensors are (N, 3, H, W) but M, (N, 1, H, W) in [0, 1], the same for every colour. An objective is computed for each
picture as in the paper and averaged over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Equation = Literal[1, 2]

# Where a norm is zero its square root has no derivative, and a picture without structure may have X^ = X.
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Pair:
    """X, X^ and M of a batch."""

    original: Tensor
    corrupted: Tensor
    mask: Tensor


def loss(equation: Equation, output: Tensor, pair: Pair, lam: float) -> Tensor:
    """Equation 1 or 2 with weight `lam`, the paper's lambda; `output` is F(X^)."""
    error = output - pair.original
    outside = _weighted(1 - pair.mask, error)
    if equation == 1:
        return (lam * outside + (1 - lam) * _weighted(pair.mask, error)).mean()
    difference = (pair.corrupted - pair.original).abs()
    return (lam * outside - (1 - lam) * _weighted(difference, error)).mean()


def _weighted(weight: Tensor, error: Tensor) -> Tensor:
    """(N,) the L2 norm of weight * error over the L1 norm of the weight, of each picture."""
    weight = weight.expand_as(error)
    norm = (weight * error).square().sum(dim=(1, 2, 3)).add(_TINY).sqrt()
    return norm / torch.clamp_min(weight.sum(dim=(1, 2, 3)), _TINY)
