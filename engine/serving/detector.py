"""A bundle executed in this process: network, Mahalanobis map, smooth map, score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.alignment import to_picture
from engine.bundle import Bundle
from engine.contract import FEATURES_NAME, GRID_NAME, POSITIONS_NAME, SCORE_NAME, Precision
from engine.errors import BackendError
from engine.maps import MapHead
from engine.serving.base import RawBatch
from engine.serving.network import Network
from engine.types import U8
from kernels import Gaussian, mahalanobis_map


class Detector:
    """Runs one executable of a bundle on a `Network`; a `Predictor`.

    Where the executable has a Gaussian the network gives features (N, C, h, w) and the kernel their distances
    (N, h, w); where it has none, the network gives the distances itself. A picture's score is the maximum of its smooth
    map, or the network's own where it gives one.
    """

    def __init__(self, bundle: Bundle, precision: Precision, network: Network, threads: int = 0) -> None:
        manifest = bundle.manifest
        executable = bundle.executable(precision)
        self._network = network
        self._threads = threads
        self._gaussian = None
        if executable.gaussian is not None:
            self._gaussian = _load_gaussian(bundle.file(executable.gaussian))
        self._head = MapHead(manifest.grid, manifest.input.height, manifest.input.width, manifest.smoothing_sigma_px)
        self._precision = precision

    @property
    def backend(self) -> str:
        """See `Predictor.backend`."""
        return self._network.backend

    @property
    def precision(self) -> str:
        """See `Predictor.precision`."""
        return self._precision

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`."""
        outputs = self._network.run(images)
        if self._gaussian is None:
            grids = outputs[GRID_NAME]  # (N, h, w)
        else:
            grids = mahalanobis_map(outputs[FEATURES_NAME], self._gaussian, threads=self._threads)
        if POSITIONS_NAME in outputs:
            grids = to_picture(grids, outputs[POSITIONS_NAME])
        scores, maps = self._head(grids)
        if SCORE_NAME in outputs:
            scores = outputs[SCORE_NAME].astype(np.float64)
        return RawBatch(scores=scores, maps=maps)

    def close(self) -> None:
        """See `Predictor.close`."""
        self._network.close()


def _load_gaussian(path: Path) -> Gaussian:
    try:
        return Gaussian.load(path)
    except ValueError as error:
        raise BackendError(str(error)) from error
