"""From the members' raw scores and maps to those of an ensemble: surprises on one scale, and their mean or maximum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract import RAW_MAP, RAW_SCORE
from engine.fusion import fuse, resized
from engine.triton import served, stub


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read what lies in the version's folder."""
        bundle = served.read(Path(args["model_repository"]) / args["model_version"])
        self._ensemble, self._size = bundle.ensemble, bundle.size

    def execute(self, requests: list[Any]) -> list[Any]:
        """`MEMBER_raw_score` (N, 1) and `MEMBER_raw_map` (N, h, w) of each to `raw_score` and `raw_map` (N, H, W)."""
        return stub.answer(requests, self._fuse)

    def _fuse(self, inputs: Mapping[str, Any]) -> dict[str, stub.Array]:
        scores, maps = [], []
        for member in self._ensemble.members:
            raw_scores = stub.host(inputs[f"{member.name}_{RAW_SCORE}"])[:, 0]
            scores.append(member.image.of(raw_scores.astype(np.float64)))
            maps.append(resized(member.pixel.of(stub.host(inputs[f"{member.name}_{RAW_MAP}"])), self._size))
        weights, rule = [member.weight for member in self._ensemble.members], self._ensemble.rule
        return stub.raw(fuse(scores, weights, rule), fuse(maps, weights, rule))
