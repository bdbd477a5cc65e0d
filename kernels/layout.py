"""How factors lie in memory, for `csrc/layout.hpp`, and how many bytes a model takes.

Letters: C channels, P positions, R rank.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from kernels.errors import KernelError
from kernels.storage import F32, F64, ITEM_BYTES, Storage

Factorisation = Literal["triangular", "low_rank"]

PANEL_ROWS = 16
HALF_ROWS = 8

# One value of a low-rank factor is read once but used twice, in z = U'y and in y - Uz: measured with batches of 1 to 8
# (benchmarks/bench_mahalanobis.py), it costs this many values of a triangular factor.
LOW_RANK_COST = 2.0


def row_values(channels: int) -> int:
    """Values that one row of a low-rank factor occupies."""
    return -(-channels // HALF_ROWS) * HALF_ROWS


def packed_values(channels: int) -> int:
    """Values that one triangular factor occupies, a little over C(C+1)/2."""
    return len(packed_indices(channels)[0])


@cache
def packed_indices(channels: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column of each packed value, in order; the row is negative where the value is a padding zero."""
    panels = -(-channels // PANEL_ROWS)
    rows, columns = [], []
    for panel in range(panels):
        width = channels - PANEL_ROWS * (panels - 1 - panel)  # the panel's columns; its last row is row `width - 1`
        full = max(width - HALF_ROWS, 0)
        for first, last, height in ((0, full, PANEL_ROWS), (full, width, HALF_ROWS)):
            column, row = np.divmod(np.arange((last - first) * height), height)
            rows.append(width - height + row)
            columns.append(first + column)
    return np.concatenate(rows), np.concatenate(columns)


def pack(factors: F64) -> F32:
    """Lower-triangular factors (P, C, C) as (P, packed_values(C)) float32."""
    rows, columns = packed_indices(factors.shape[-1])
    return np.where(rows >= 0, factors[:, np.maximum(rows, 0), columns], 0.0).astype(np.float32)


def unpack(packed: F32, channels: int) -> F64:
    """The inverse of `pack`: (P, packed_values(C)) as lower-triangular (P, C, C) float64."""
    rows, columns = packed_indices(channels)
    real = rows >= 0
    factors = np.zeros((len(packed), channels, channels))
    factors[:, rows[real], columns[real]] = packed[:, real]
    return factors


def full_rank(channels: int, samples: int, rank: int | None) -> int:
    """Eigenpairs that a low-rank factor holds: all that the covariance of `samples` pictures has, or `rank` if fewer."""
    most = max(min(channels, samples - 1), 1)
    return most if rank is None else min(rank, most)


def choose(channels: int, samples: int, rank: int | None) -> Factorisation:
    """The exact factorisation that is cheaper to evaluate; a truncated one is always low rank."""
    kept = full_rank(channels, samples, rank)
    if rank is not None and kept < min(channels, samples - 1):
        return "low_rank"
    low_rank = LOW_RANK_COST * kept * row_values(channels)
    return "low_rank" if low_rank < packed_values(channels) else "triangular"


def model_bytes(
    channels: int,
    positions: int,
    samples: int,
    *,
    rank: int | None = None,
    factorisation: Factorisation | None = None,
    storage: Storage = "float32",
) -> int:
    """Bytes of the model that `fit` would make, known before any work: `Gaussian.nbytes` of the same arguments."""
    if min(channels, positions, samples) < 1:
        raise KernelError(f"model_bytes: expected positive counts, got {channels=}, {positions=}, {samples=}")
    item = ITEM_BYTES[storage]
    if (factorisation or choose(channels, samples, rank)) == "triangular":
        return positions * (packed_values(channels) * item + channels * 4)
    kept = full_rank(channels, samples, rank)
    return positions * (kept * row_values(channels) * item + (kept + 1 + channels) * 4) + channels * 4
