"""Polygons as people draw them on a picture: whether one is sound, and which pixels it holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.types import F64

Points = tuple[tuple[float, float], ...]
Inside = npt.NDArray[np.bool_]


def fault(points: Points, most: float) -> str | None:
    """What is wrong with a polygon of (x, y) corners in 0..`most`, in a few words; None where nothing is."""
    if len(points) < 3:
        return f"expected at least 3 points, got {len(points)}"
    corners = np.asarray(points, np.float64)
    outside = ~((corners >= 0) & (corners <= most)).all(axis=1)  # no number is outside, too
    if outside.any():
        x, y = points[int(outside.argmax())]
        return f"expected points in 0..{most:g}, got [{x:g}, {y:g}]"
    if crossing := _crossing(corners):
        return f"the edges from point {crossing[0]} and from point {crossing[1]} cross; give the points in order"
    x, y = corners.T
    if abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) < 1e-9 * max(1.0, float(corners.max()) ** 2):
        return "the points lie on one line"
    return None


def inside(corners: F64, size: tuple[int, int]) -> Inside:
    """(n, 2) corners (x, y) in px -> (height, width): the pixels whose centres it holds.

    OpenCV's fill also draws the outline, so that two halves of a picture would share a row; here each pixel is in
    exactly one of them. A row is crossed by edges at some x; every crossing turns all pixels to its right over.
    """
    height, width = size
    turned = np.zeros((height, width + 1), np.bool_)
    centres = np.arange(height) + 0.5
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((y1 <= centres) != (y2 <= centres))
        x = x1 + (centres[rows] - y1) * ((x2 - x1) / (y2 - y1 or 1.0))  # a level edge crosses no row
        turned[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)] ^= True
    held: Inside = np.logical_xor.accumulate(turned, axis=1)[:, :width]
    return held


def _crossing(corners: F64) -> tuple[int, int] | None:
    """The first two edges that cross properly, by the points (from 0) that they begin at."""
    starts, ends = corners, np.roll(corners, -1, axis=0)

    def side(of: F64) -> F64:
        """(n, m) on which side of edge n the points m lie."""
        along = (ends - starts)[:, None]
        to = of[None] - starts[:, None]
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    apart = side(starts) * side(ends) < 0  # (n, m) whether the ends of edge m lie on two sides of edge n
    found = np.argwhere(apart & apart.T)
    return None if not len(found) else (int(found[0][0]), int(found[0][1]))
