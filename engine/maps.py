"""From a grid of distances to a smooth map of the picture and its score.

Bilinear upsampling and Gaussian smoothing are both linear and separable, so the two together are one small matrix per
axis, computed once: map = Y @ grid @ X.T. The same matrices serve training, every backend and Triton, which is why
their scores agree. A pixel depends on the cells near it alone, so a large map is made in blocks, each of the few cells
that it needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.contract import Manifest
from engine.types import F32, F64

_BLAS_ALONE = 1 << 18  # multiply-adds up to which OpenBLAS uses one thread
_BLOCK_PX = 512


@dataclass(frozen=True, slots=True)
class _Block:
    """Some pixels of an axis: the cells that they depend on, how, and how many rows are multiplied at once."""

    cells: slice
    matrix: F32
    strip: int


class MapHead:
    """Upsamples (h, w) grids to (H, W) maps, smooths them and takes the maximum as the picture's score.

    `sigma_px` is the standard deviation of the smoothing in pixels of the (H, W) map; 0 turns it off. `cell_px` is the
    side of a grid's cell where the last ones may reach beyond the map; None: the cells fill it.
    """

    def __init__(
        self, grid: tuple[int, int], height: int, width: int, sigma_px: float, cell_px: int | None = None
    ) -> None:
        self.grid = grid
        self.height = height
        self.width = width
        self._rows = [  # matrices (pixels, cells)
            _Block(cells, part, _strip_px(len(part), part.shape[1] * grid[1]))
            for cells, part in _parts(operator(grid[0], height, sigma_px, cell_px))
        ]
        self._columns = [  # (cells, pixels)
            _Block(cells, np.ascontiguousarray(part.T), _strip_px(height, part.size))
            for cells, part in _parts(operator(grid[1], width, sigma_px, cell_px))
        ]

    @classmethod
    def of(cls, manifest: Manifest) -> MapHead:
        """That of a bundle of one model."""
        size, tiling = manifest.input, manifest.tiling
        cell_px = None if tiling is None else tiling.cell_px
        return cls(manifest.grid, size.height, size.width, manifest.smoothing_sigma_px, cell_px)

    def __call__(self, grids: F32) -> tuple[F64, F32]:
        """(N, h, w) float32 distances -> scores (N,) float64 and maps (N, H, W) float32."""
        maps = self._widen(self._heighten(grids))
        return maps.max(axis=(1, 2), initial=-np.inf).astype(np.float64), maps

    def _heighten(self, grids: F32) -> F32:
        """(N, h, w) -> (N, H, w)."""
        n, w = len(grids), self.grid[1]
        parts = []
        for block in self._rows:
            pixels, cells = block.matrix.shape
            strips = block.matrix.reshape(-1, block.strip, cells)  # (pixels / strip, strip, cells)
            parts.append(np.matmul(strips, grids[:, None, block.cells]).reshape(n, pixels, w))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _widen(self, tall: F32) -> F32:
        """(N, H, w) -> (N, H, W)."""
        parts = []
        for block in self._columns:
            cells, pixels = block.matrix.shape
            strips = tall[..., block.cells].reshape(-1, block.strip, cells)  # (N * H / strip, strip, cells)
            parts.append(np.matmul(strips, block.matrix).reshape(len(tall), self.height, pixels))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _parts(matrix: F64) -> Iterator[tuple[slice, F32]]:
    """(pixels, cells) in runs of pixels: the cells that these depend on, and how."""
    for start in range(0, len(matrix), _BLOCK_PX):
        part = matrix[start : start + _BLOCK_PX]
        used = np.flatnonzero(part.any(axis=0))
        cells = slice(int(used[0]), int(used[-1]) + 1)
        yield cells, part[:, cells].astype(np.float32)


def _strip_px(height: int, per_row: int) -> int:
    """The most rows, a divisor of `height`, whose product OpenBLAS does on the calling thread; a row of it takes
    `per_row` multiply-adds.

    Its threads would spin for a while after each product, on cores that the next batch's network needs: measured, that
    cost half of the detector's throughput on two cores.
    """
    fitting = [rows for rows in range(1, height + 1) if height % rows == 0 and rows * per_row <= _BLAS_ALONE]
    return max(fitting, default=1)


def operator(cells: int, pixels: int, sigma_px: float, cell_px: int | None = None) -> F64:
    """The (pixels, cells) matrix of bilinear upsampling along one axis followed by Gaussian smoothing.

    Its rows sum to one, so a constant grid stays constant.
    """
    return gaussian(pixels, sigma_px) @ bilinear(cells, pixels, cell_px)


def bilinear(cells: int, pixels: int, cell_px: int | None = None) -> F64:
    """(pixels, cells) linear interpolation at half-pixel centres, clamped at the borders (align_corners=False).

    Cells are `cell_px` wide, None: as wide as fills the pixels.
    """
    covered = pixels if cell_px is None else cells * cell_px
    position = np.clip((np.arange(pixels) + 0.5) * cells / covered - 0.5, 0, cells - 1)
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
