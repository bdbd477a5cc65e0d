"""On a GPU, from the plan's outputs to raw scores and maps: Mahalanobis map, alignment, smoothing, maximum.

Features are read where they lie, by DLPack, and the CUDA kernel runs on them; only maps and scores leave the device.
What Triton holds in host memory, such as its warm-up, is computed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.serving.base import RawBatch
from engine.serving.detector import load_gaussian
from engine.serving.head import Head
from engine.triton import served, stub
from engine.triton.device import DeviceHead


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the Gaussian that lies in the version's folder, where the bundle has one."""
        folder = Path(args["model_repository"]) / args["model_version"]
        bundle = served.read(folder)
        file = bundle.executable.gaussian
        gaussian = None if file is None else load_gaussian(folder / file.path)
        self._head = Head(bundle.manifest, gaussian)
        self._device_head = DeviceHead(bundle.manifest, gaussian)

    def execute(self, requests: list[Any]) -> list[Any]:
        """The graph's outputs to `raw_score` (N, 1) and `raw_map` (N, H, W)."""
        return stub.answer(requests, self._answer)

    def _answer(self, inputs: Mapping[str, Any]) -> dict[str, stub.Array]:
        raw = self._raw(inputs)
        return stub.raw(raw.scores, raw.maps)

    def _raw(self, inputs: Mapping[str, Any]) -> RawBatch:
        if any(stub.in_host_memory(tensor) for tensor in inputs.values()):
            return self._head({name: stub.host(tensor) for name, tensor in inputs.items()})
        return self._device_head(inputs)
