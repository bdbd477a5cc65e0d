"""A bundle on the CPU: pictures to raw scores and maps, by its network and what comes after it.

On a GPU it is two models: a TensorRT plan, and the map on its device.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract import RAW_MAP, RAW_SCORE, TRITON_IMAGE
from engine.serving.detector import load_gaussian
from engine.serving.head import Head
from engine.serving.onnx import OnnxNetwork
from engine.triton import served, stub


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the network that lies in the version's folder, and the Gaussian where the bundle has one."""
        folder = Path(args["model_repository"]) / args["model_version"]
        bundle = served.read(folder)
        network, gaussian = bundle.executable.network, bundle.executable.gaussian
        self._network = OnnxNetwork(folder / network.path, threads=0)
        self._head = Head(bundle.manifest, None if gaussian is None else load_gaussian(folder / gaussian.path))

    def execute(self, requests: list[Any]) -> list[Any]:
        """`IMAGE` (N, H, W, 3) uint8 to `raw_score` (N, 1) and `raw_map` (N, H, W)."""
        return stub.answer(requests, self._look)

    def finalize(self) -> None:
        """Release the network."""
        self._network.close()

    def _look(self, inputs: Mapping[str, Any]) -> dict[str, stub.Array]:
        raw = self._head(self._network.run(stub.host(inputs[TRITON_IMAGE])))
        return {RAW_SCORE: raw.scores.astype(np.float32)[:, np.newaxis], RAW_MAP: raw.maps}
