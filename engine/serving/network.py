"""The seam below a detector: a runtime that executes one ONNX network on the CPU, with a double beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.types import U8

Array = npt.NDArray[np.float32]
NOTHING: Mapping[str, Array] = MappingProxyType({})


class Network(Protocol):
    """Runs a bundle's network. `run` may be called from several threads at once."""

    @property
    def backend(self) -> str:
        """`onnx`, `openvino`, ..."""

    def run(self, images: U8, common: Mapping[str, Array] = NOTHING) -> Mapping[str, Array]:
        """(N, H, W, 3) uint8 RGB -> the graph's outputs by name.

        `common` are tensors (N, ...) that other networks have computed of the same pictures, by name: a graph that has
        inputs of these names goes on from them. Raises BackendError when the runtime fails.
        """

    def close(self) -> None:
        """Release the model."""


class FunctionNetwork:
    """The double: any function of the pictures."""

    backend = "function"

    def __init__(self, function: Callable[[U8], Mapping[str, Array]]) -> None:
        self._function = function

    def run(self, images: U8, common: Mapping[str, Array] = NOTHING) -> Mapping[str, Array]:
        """See `Network.run`."""
        return self._function(images)

    def close(self) -> None:
        """Nothing to release."""
