"""A bundle on the CPU: pictures to raw scores and maps, as in-process.

On a GPU it is two models: a TensorRT plan, and the map on its device.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.bundle import Bundle
from engine.contract import TRITON_IMAGE
from engine.serving.select import open_local
from engine.triton import served, stub


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle's files that lie in the version's folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        bundle = served.read(folder)
        self._predictor = open_local(Bundle(folder, bundle.manifest), "onnx", bundle.precision, threads=0)

    def execute(self, requests: list[Any]) -> list[Any]:
        """`IMAGE` (N, H, W, 3) uint8 to `raw_score` (N, 1) and `raw_map` (N, H, W)."""
        return stub.answer(requests, self._look)

    def finalize(self) -> None:
        """Release the network."""
        self._predictor.close()

    def _look(self, inputs: Mapping[str, Any]) -> dict[str, stub.Array]:
        raw = self._predictor.predict(stub.host(inputs[TRITON_IMAGE]))
        return stub.raw(raw.scores, raw.maps)
