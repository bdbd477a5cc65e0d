"""A bundle executed in this process: network, then `Head`; a tiled one's network sees tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.bundle import Bundle
from engine.contract import COMMON_PREFIX, Precision
from engine.errors import BackendError
from engine.serving.base import RawBatch
from engine.serving.head import Head
from engine.serving.network import NOTHING, Array, Network
from engine.tiling import Layout
from engine.types import U8
from kernels import Gaussian


class Detector:
    """Runs one executable of a bundle on a `Network`; a `Predictor`."""

    def __init__(self, bundle: Bundle, precision: Precision, network: Network, threads: int = 0) -> None:
        executable = bundle.executable(precision)
        gaussian = None if executable.gaussian is None else load_gaussian(bundle.file(executable.gaussian))
        self._network = network
        self._head = Head(bundle.manifest, gaussian, threads)
        self._layout = Layout.of(bundle.manifest)
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
        return self.go_on(images, NOTHING)

    def go_on(self, images: U8, common: Mapping[str, Array]) -> RawBatch:
        """The same, from what other networks have computed of these pictures; what others may go on from is in it.

        The network of a tiled bundle sees tiles, which no other network does: it neither takes nor gives anything.
        """
        if self._layout is not None:
            return self._head.finish(
                *self._layout.look(images, lambda tiles: self._head.look(self._network.run(tiles)))
            )
        outputs = self._network.run(images, common)
        given = {name: array for name, array in outputs.items() if name.startswith(COMMON_PREFIX)}
        return replace(self._head(outputs), common=given)

    def close(self) -> None:
        """See `Predictor.close`."""
        self._network.close()


def load_gaussian(path: Path) -> Gaussian:
    """An executable's Gaussian; raises BackendError where the file is none."""
    try:
        return Gaussian.load(path)
    except ValueError as error:
        raise BackendError(str(error)) from error
