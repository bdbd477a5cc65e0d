"""Which factorisation is the cheaper one, and how many bytes a model takes. `csrc/layout.hpp` says how it lies there.

Letters: C channels, P positions, R rank.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from kernels import _cpu
from kernels.errors import KernelError
from kernels.storage import ITEM_BYTES, Storage

Factorisation = Literal["triangular", "low_rank"]

# One value of a low-rank factor is read once but used twice, in z = U'y and in y - Uz: measured with batches of 1 to 8
# (benchmarks/bench_mahalanobis.py), it costs this many values of a triangular factor.
LOW_RANK_COST = 1.6

_PANEL_ROWS, _HALF_ROWS = 16, 8  # as in csrc/layout.hpp


def row_values(channels: int) -> int:
    """Values that one row of a low-rank factor occupies."""
    return _cpu.row_values(channels)


def packed_values(channels: int) -> int:
    """Values that one triangular factor occupies, a little over C(C+1)/2."""
    return _cpu.packed_values(channels)


def triangle(channels: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The (row, column) in its C x C matrix of every value of a packed triangular factor, (packed values,) each.

    Rows of padding are negative: the panels of 16 rows end at the last row, so the first one begins above the matrix.
    """
    panels = -(-channels // _PANEL_ROWS)
    rows, columns = [], []
    for panel in range(panels):
        below = _PANEL_ROWS * (panels - 1 - panel)  # rows of the matrix under this panel
        first = channels - below - _PANEL_ROWS
        for column in range(channels - below):
            touched = _HALF_ROWS if column >= channels - below - _HALF_ROWS else 0
            found = np.arange(first + touched, first + _PANEL_ROWS)
            rows.append(found)
            columns.append(np.full_like(found, column))
    return np.concatenate(rows), np.concatenate(columns)


def full_rank(channels: int, samples: int, rank: int | None) -> int:
    """Eigenpairs that a low-rank factor holds: all that the covariance of `samples` pictures has, or fewer: `rank`."""
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
