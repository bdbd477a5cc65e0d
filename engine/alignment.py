"""Distances of aligned features, brought back to the picture they were measured on.

A network that aligns its pictures (FYD's ICA and FCA) gives features in a frame of its own, and a second output
`positions`: for every cell of the picture's grid, where its place lies in the aligned grid. Letters: N batch, h w grid.
"""

from __future__ import annotations

import numpy as np

from engine.types import F32


def to_picture(grids: F32, positions: F32) -> F32:
    """Sample aligned grids (N, h, w) at `positions` (N, h, w, 2), bilinearly -> (N, h, w) in the picture's frame.

    Positions are (x, y) from -1 at the left and top edges to 1 at the right and bottom ones; a place that the aligned
    grid does not show takes the value of its nearest cell.
    """
    h, w = grids.shape[1:]
    left, right, x = _neighbours(positions[..., 0], w)
    upper, lower, y = _neighbours(positions[..., 1], h)
    n = np.arange(len(grids))[:, None, None]
    top = grids[n, upper, left] * (1 - x) + grids[n, upper, right] * x
    bottom = grids[n, lower, left] * (1 - x) + grids[n, lower, right] * x
    return np.asarray(top * (1 - y) + bottom * y, np.float32)


def _neighbours(position: F32, cells: int) -> tuple[np.ndarray, np.ndarray, F32]:
    """The cells before and after each position of -1..1, and how far it is from the first to the second, 0..1."""
    at = np.clip(((position + 1) * cells - 1) / 2, 0, cells - 1)
    before = np.minimum(at.astype(np.intp), max(cells - 2, 0))
    return before, np.minimum(before + 1, cells - 1), np.asarray(at - before, np.float32)
