"""A bundle executed in this process: network, Mahalanobis map, smooth map, score."""

from __future__ import annotations

from pathlib import Path

from engine.alignment import to_picture
from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import BackendError
from engine.maps import MapHead
from engine.serving.base import RawBatch
from engine.serving.network import Network
from engine.types import U8
from kernels import Gaussian, mahalanobis_map


class Detector:
    """Runs one executable of a bundle on a `Network`; a `Predictor`.

    Where the executable has a Gaussian the network gives features (N, C, h, w) and the kernel their distances
    (N, h, w); where it has none, the network gives the distances itself.
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
        grids = outputs[0]  # (N, h, w), or features (N, C, h, w)
        if self._gaussian is not None:
            grids = mahalanobis_map(grids, self._gaussian, threads=self._threads)
        if len(outputs) > 1:  # an aligning network also says where each place of the picture lies
            grids = to_picture(grids, outputs[1])
        scores, maps = self._head(grids)
        return RawBatch(scores=scores, maps=maps)

    def close(self) -> None:
        """See `Predictor.close`."""
        self._network.close()


def _load_gaussian(path: Path) -> Gaussian:
    try:
        return Gaussian.load(path)
    except ValueError as error:
        raise BackendError(str(error)) from error
