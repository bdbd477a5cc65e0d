"""Pictures of an ensemble's size to that of a member which takes another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.contract import INPUT_NAME, TRITON_IMAGE
from engine.images import resize
from engine.triton import stub


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the size from the configuration."""
        (output,) = json.loads(args["model_config"])["output"]
        self._height, self._width = (int(size) for size in output["dims"][:2])

    def execute(self, requests: list[Any]) -> list[Any]:
        """`IMAGE` (N, H, W, 3) to `image` (N, h, w, 3)."""
        return stub.answer(requests, self._resize)

    def _resize(self, inputs: Mapping[str, Any]) -> dict[str, stub.Array]:
        pictures = stub.host(inputs[TRITON_IMAGE])
        return {INPUT_NAME: np.stack([resize(picture, self._height, self._width) for picture in pictures])}
