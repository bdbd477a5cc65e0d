"""A bundle executed in this process: network, then `Head`; a tiled one's network sees tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import BackendError
from engine.serving.base import RawBatch
from engine.serving.head import Head
from engine.serving.network import Array, Network
from engine.tiling import Layout
from engine.types import U8
from kernels import Gaussian


class Detector:
    """Runs one executable of a bundle on a `Network`; a `Predictor`."""

    def __init__(self, bundle: Bundle, precision: Precision, network: Network, threads: int = 0) -> None:
        executable = bundle.executable(precision)
        gaussian = None if executable.gaussian is None else load_gaussian(bundle.file(executable.gaussian))
        self.network = network
        self._head = Head(bundle.manifest, gaussian, threads)
        self._layout = Layout.of(bundle.manifest)
        self._precision = precision

    @property
    def backend(self) -> str:
        """See `Predictor.backend`."""
        return self.network.backend

    @property
    def precision(self) -> str:
        """See `Predictor.precision`."""
        return self._precision

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`."""
        if self._layout is None:
            return self.judge(self.network.run(images))
        return self._head.finish(*self._layout.look(images, lambda tiles: self._head.look(self.network.run(tiles))))

    def judge(self, outputs: Mapping[str, Array]) -> RawBatch:
        """The network's outputs for N whole pictures -> raw scores and maps; detectors of a network may share them."""
        return self._head(outputs)

    def close(self) -> None:
        """See `Predictor.close`."""
        self.network.close()


def load_gaussian(path: Path) -> Gaussian:
    """An executable's Gaussian; raises BackendError where the file is none."""
    try:
        return Gaussian.load(path)
    except ValueError as error:
        raise BackendError(str(error)) from error
