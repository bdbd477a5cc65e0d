"""From a grid of distances to a smooth map of the picture and its score.

Bilinear upsampling and Gaussian smoothing are both linear and separable, so the two together are one small matrix per
axis, computed once: map = Y @ grid @ X.T. The same matrices serve training, every backend and Triton, which is why
their scores agree.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from engine.types import F32, F64

_BLAS_ALONE = 1 << 18  # multiply-adds up to which OpenBLAS uses one thread


class MapHead:
    """Upsamples (h, w) grids to (H, W) maps, smooths them and takes the maximum as the picture's score.

    `sigma_px` is the standard deviation of the smoothing in pixels of the (H, W) map; 0 turns it off.
    """

    def __init__(self, grid: tuple[int, int], height: int, width: int, sigma_px: float) -> None:
        self.grid = grid
        self.height = height
        self.width = width
        rows = operator(grid[0], height, sigma_px).astype(np.float32)  # (H, h)
        self._rows = rows.reshape(-1, _strip_px(height, grid[0] * grid[1]), grid[0])  # (H / strip, strip, h)
        self._columns_t = np.ascontiguousarray(operator(grid[1], width, sigma_px).T, dtype=np.float32)  # (w, W)
        self._strip = _strip_px(height, grid[1] * width)

    def __call__(self, grids: F32) -> tuple[F64, F32]:
        """(N, h, w) float32 distances -> scores (N,) float64 and maps (N, H, W) float32."""
        n, w = len(grids), self.grid[1]
        tall: F32 = np.matmul(self._rows, grids[:, None]).reshape(-1, self._strip, w)  # (N * H / strip, strip, w)
        maps: F32 = np.matmul(tall, self._columns_t).reshape(n, self.height, self.width)
        return maps.max(axis=(1, 2), initial=-np.inf).astype(np.float64), maps


def _strip_px(height: int, per_row: int) -> int:
    """The most rows, a divisor of `height`, whose product OpenBLAS does on the calling thread; a row of it takes
    `per_row` multiply-adds.

    Its threads would spin for a while after each product, on cores that the next batch's network needs: measured, that
    cost half of the detector's throughput on two cores.
    """
    fitting = [rows for rows in range(1, height + 1) if height % rows == 0 and rows * per_row <= _BLAS_ALONE]
    return max(fitting, default=1)


def operator(cells: int, pixels: int, sigma_px: float) -> F64:
    """The (pixels, cells) matrix of bilinear upsampling along one axis followed by Gaussian smoothing.

    Its rows sum to one, so a constant grid stays constant.
    """
    return gaussian(pixels, sigma_px) @ bilinear(cells, pixels)


def bilinear(cells: int, pixels: int) -> F64:
    """(pixels, cells) linear interpolation at half-pixel centres, clamped at the borders (align_corners=False)."""
    position = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    left = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    weight = position - left
    matrix = np.zeros((pixels, cells))
    rows = np.arange(pixels)
    matrix[rows, left] += 1 - weight
    matrix[rows, np.minimum(left + 1, cells - 1)] += weight
    return matrix


def gaussian(pixels: int, sigma_px: float) -> F64:
    """(pixels, pixels) Gaussian smoothing cut at four sigma, mirrored at the borders (scipy's `reflect`)."""
    if sigma_px == 0:
        return np.eye(pixels)
    radius = math.ceil(4 * sigma_px)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    taps /= taps.sum()
    matrix = np.zeros((pixels, pixels))
    rows = np.arange(pixels)
    for offset, tap in zip(range(-radius, radius + 1), taps, strict=True):
        np.add.at(matrix, (rows, _mirror(rows + offset, pixels)), tap)
    return matrix


def _mirror(index: npt.NDArray[np.int64], pixels: int) -> npt.NDArray[np.int64]:
    """Fold indices back into 0..pixels-1 by reflection at the outer edges (d c b a | a b c d | d c b a)."""
    folded = np.mod(index, 2 * pixels)
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, 2 * pixels - 1 - folded)
    return mirrored
