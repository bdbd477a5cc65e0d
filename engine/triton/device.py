"""`engine.serving.head.Head` for features in a GPU's memory, which they do not leave; maps and scores do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.contract import FEATURES_NAME, GRID_NAME, POSITIONS_NAME, SCORE_NAME, Manifest
from engine.maps import operator
from engine.serving.base import RawBatch
from engine.serving.head import Head
from kernels import Gaussian, mahalanobis_map
from kernels.cuda.download import download
from kernels.cuda.head import MapHead


class DeviceHead:
    """From a network's outputs on a device to raw scores and maps in host memory.

    Aligned distances, of which there are few, are brought back to the picture on the CPU.
    """

    def __init__(self, manifest: Manifest, gaussian: Gaussian | None) -> None:
        sigma_px = manifest.smoothing_sigma_px
        rows = operator(manifest.grid[0], manifest.input.height, sigma_px)
        columns = operator(manifest.grid[1], manifest.input.width, sigma_px)
        self._gaussian = gaussian
        self._maps = MapHead(rows, columns)
        self._aligned = Head(manifest, None)

    def __call__(self, outputs: Mapping[str, Any]) -> RawBatch:
        """The graph's outputs by name, arrays with DLPack on a device -> scores (N,) and maps (N, H, W)."""
        if self._gaussian is None:
            grids = outputs[GRID_NAME]  # (N, h, w)
        else:
            grids = mahalanobis_map(outputs[FEATURES_NAME], self._gaussian)
        own = {name: download(outputs[name]) for name in (POSITIONS_NAME, SCORE_NAME) if name in outputs}
        if POSITIONS_NAME in own:
            return self._aligned({GRID_NAME: download(grids), **own})
        maps, scores = self._maps(grids)
        raw_scores = own.get(SCORE_NAME, download(scores))
        return RawBatch(scores=raw_scores.astype(np.float64), maps=download(maps))
