"""The bundle's network on the CPU: pictures to the graph's outputs. On a GPU a TensorRT plan takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.contract import INPUT_NAME
from engine.serving.onnx import OnnxNetwork
from engine.triton import served, stub


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the network that lies in the version's folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        network = served.read(folder).executable.network
        self._network = OnnxNetwork(folder / network.path, threads=0)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Pictures (N, H, W, 3) uint8 to the graph's outputs."""
        return stub.answer(requests, lambda inputs: self._network.run(stub.host(inputs[INPUT_NAME])))

    def finalize(self) -> None:
        """Release the network."""
        self._network.close()
