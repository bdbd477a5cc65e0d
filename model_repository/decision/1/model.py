"""From raw scores and maps to the calibrated scale: score, label, map and mask; the raw score is handed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract import ANOMALY_MAP, PRED_LABEL, PRED_MASK, PRED_SCORE, RAW_MAP, RAW_SCORE
from engine.decide import mask_of
from engine.triton import served, stub


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the thresholds that lie in the version's folder."""
        self._calibration = served.read(Path(args["model_repository"]) / args["model_version"]).calibration

    def execute(self, requests: list[Any]) -> list[Any]:
        """`raw_score` (N, 1) and `raw_map` (N, H, W) to the outputs of `detector`."""
        return stub.answer(requests, self._judge)

    def _judge(self, inputs: Mapping[str, Any]) -> dict[str, stub.Array]:
        raw_scores = stub.host(inputs[RAW_SCORE])
        scores = self._calibration.image.calibrated(raw_scores.astype(np.float64))
        maps = self._calibration.pixel.calibrated(stub.host(inputs[RAW_MAP]))
        return {
            PRED_SCORE: scores.astype(np.float32),
            PRED_LABEL: scores >= 0.5,
            RAW_SCORE: raw_scores,
            ANOMALY_MAP: maps,
            PRED_MASK: mask_of(maps),
        }
