"""A picture larger than a network, looked at in tiles: where they lie, and how what is seen in them becomes one grid.

Tiles are squares whose corners lie on the cells of the whole picture's grid, so a tile's grid covers cells of it. Along
each axis they are spread evenly from border to border, and neighbours overlap; there their cells are blended by weights
that rise from a tile's edge to its middle (a squared sine) and sum to one at every cell: what all tiles agree on comes
out unchanged, and nothing jumps where a tile ends. A picture that is no multiple of the cells, or smaller than a tile
along one axis, is continued by its mirror image, which the network sees but the map does not show.

Upsampling and smoothing come after the blending (`engine.maps`), once, over the whole picture.

Letters: N pictures, H W picture, s a tile's side, g a tile's grid's, h w the whole picture's grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engine.contract import Manifest, Tiling
from engine.maps import MapHead
from engine.types import F32, U8

AT_ONCE = 16  # tiles that a network is given, which bounds memory whatever the picture's size

Look = Callable[[U8], Sequence[F32]]  # (n, s, s, 3) uint8 RGB -> grids (n, g, g), and scores (n,) where there are any


class Axis:
    """Tiles along one axis of `pixels` px.

    `cells` are the whole's; `starts` the tiles' first ones, ascending; `weights` (tiles, g) of each tile's cells;
    `sources` (tiles, s) where each of its pixels lies.
    """

    def __init__(self, pixels: int, tiling: Tiling) -> None:
        per_tile = tiling.side_px // tiling.cell_px
        self.cells = -(-pixels // tiling.cell_px)
        self.starts = starts(self.cells, per_tile, tiling.overlap)
        self.weights = weights(self.cells, per_tile, self.starts).astype(np.float32)
        first = np.array(self.starts)[:, None] * tiling.cell_px
        self.sources = _mirrored(first + np.arange(tiling.side_px), pixels)


class Layout:
    """The tiles of pictures of (height, width) px; `grid` is (h, w), `len` the number of tiles."""

    def __init__(self, height: int, width: int, tiling: Tiling) -> None:
        self.height = height
        self.width = width
        self.tiling = tiling
        self._rows = Axis(height, tiling)
        self._columns = Axis(width, tiling)
        self.grid = (self._rows.cells, self._columns.cells)

    @classmethod
    def of(cls, manifest: Manifest) -> Layout | None:
        """That of a bundle; None where its network takes whole pictures."""
        if manifest.tiling is None:
            return None
        return cls(manifest.input.height, manifest.input.width, manifest.tiling)

    def __len__(self) -> int:
        return len(self._rows.starts) * len(self._columns.starts)

    def head(self, sigma_px: float) -> MapHead:
        """What makes a map (H, W) of a blended grid."""
        return MapHead(self.grid, self.height, self.width, sigma_px, self.tiling.cell_px)

    def tile(self, image: U8, number: int) -> U8:
        """(H, W, 3) -> (s, s, 3), a copy; tiles are numbered row by row."""
        i, j = divmod(number, len(self._columns.starts))
        tile: U8 = image[self._rows.sources[i][:, None], self._columns.sources[j]]
        return tile

    def look(self, images: U8, look: Look) -> tuple[F32, ...]:
        """What a network that takes tiles sees in (N, H, W, 3): the blended grids (N, h, w), and where it gives scores
        the largest of each picture's tiles (N,)."""
        grids = np.zeros((len(images), *self.grid), np.float32)
        scores: list[F32] = []
        places = [divmod(k, len(self)) for k in range(len(images) * len(self))]  # picture and tile
        for first in range(0, len(places), AT_ONCE):
            part = places[first : first + AT_ONCE]
            found = look(np.stack([self.tile(images[n], number) for n, number in part]))
            for (n, number), grid in zip(part, found[0], strict=True):
                self._add(grids[n], number, grid)
            scores.extend(found[1:])
        if not scores:
            return (grids,)
        return grids, np.concatenate(scores).reshape(len(images), len(self)).max(axis=1)

    def _add(self, whole: F32, number: int, grid: F32) -> None:
        """Add a tile's grid (g, g), weighted, to that of its picture (h, w)."""
        i, j = divmod(number, len(self._columns.starts))
        top, left = self._rows.starts[i], self._columns.starts[j]
        room = whole[top : top + len(grid), left : left + len(grid)]  # smaller where the picture ends in the tile
        height, width = room.shape
        room += self._rows.weights[i, :height, None] * self._columns.weights[j, :width] * grid[:height, :width]


def starts(cells: int, per_tile: int, overlap: float) -> tuple[int, ...]:
    """The first cells of as few tiles of `per_tile` cells as cover `cells`, any two neighbours sharing at least a share
    `overlap` of a tile. Raises ValueError where that leaves no step from one tile to the next."""
    beyond = cells - per_tile
    if beyond <= 0:
        return (0,)
    step = math.floor(per_tile * (1 - overlap))
    if step < 1:
        raise ValueError(f"expected tiles of more than {per_tile} cells a side for an overlap of {overlap:g}")
    steps = -(-beyond // step)
    return tuple(round(i * beyond / steps) for i in range(steps + 1))


def weights(cells: int, per_tile: int, starts: Sequence[int]) -> npt.NDArray[np.float64]:
    """(tiles, per_tile) weights of the tiles' cells; at each of the whole's `cells` they sum to one."""
    window = np.sin(np.pi * (np.arange(per_tile) + 0.5) / per_tile) ** 2
    total = np.zeros(max(cells, per_tile))
    for start in starts:
        total[start : start + per_tile] += window
    return np.stack([window / total[start : start + per_tile] for start in starts])


def _mirrored(index: npt.NDArray[np.intp], length: int) -> npt.NDArray[np.intp]:
    """Indices beyond the end folded back into 0..length-1 by reflection at the outer edges."""
    folded = np.mod(index, 2 * length)
    mirrored: npt.NDArray[np.intp] = np.minimum(folded, 2 * length - 1 - folded)
    return mirrored
