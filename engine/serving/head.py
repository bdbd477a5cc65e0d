"""What comes after the network, on the CPU: Mahalanobis map, alignment, smooth map, score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.alignment import to_picture
from engine.contract import FEATURES_NAME, GRID_NAME, POSITIONS_NAME, SCORE_NAME, Manifest
from engine.maps import MapHead
from engine.serving.base import RawBatch
from engine.serving.network import Array
from kernels import Gaussian, mahalanobis_map


class Head:
    """From a network's outputs to raw scores and maps.

    With a Gaussian the network gives features (N, C, h, w) and the kernel their distances (N, h, w); without one the
    network gives the distances itself. A picture's score is the maximum of its smooth map, or the network's own where
    it gives one. `look` and `finish` are the two halves: between them the grids of tiles become a picture's.
    """

    def __init__(self, manifest: Manifest, gaussian: Gaussian | None, threads: int = 0) -> None:
        self._gaussian = gaussian
        self._threads = threads
        self._maps = MapHead.of(manifest)

    def __call__(self, outputs: Mapping[str, Array]) -> RawBatch:
        """The graph's outputs by name -> scores (N,) and maps (N, H, W)."""
        return self.finish(*self.look(outputs))

    def look(self, outputs: Mapping[str, Array]) -> tuple[Array, ...]:
        """The graph's outputs by name -> distances (N, h, w), and the network's own scores (N,) where it gives any."""
        if self._gaussian is None:
            grids = outputs[GRID_NAME]  # (N, h, w)
        else:
            grids = mahalanobis_map(outputs[FEATURES_NAME], self._gaussian, threads=self._threads)
        if POSITIONS_NAME in outputs:
            grids = to_picture(grids, outputs[POSITIONS_NAME])
        return (grids, outputs[SCORE_NAME]) if SCORE_NAME in outputs else (grids,)

    def finish(self, grids: Array, scores: Array | None = None) -> RawBatch:
        """Distances (N, h, w) of whole pictures, and the network's own scores (N,), -> scores and maps (N, H, W)."""
        peaks, maps = self._maps(grids)
        return RawBatch(scores=peaks if scores is None else scores.astype(np.float64), maps=maps)
