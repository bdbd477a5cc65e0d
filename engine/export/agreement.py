"""Whether an export gives the scores that ONNX Runtime gives for the same executable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import BackendError
from engine.export.record import Agreement
from engine.serving.base import Predictor
from engine.serving.select import open_local
from engine.types import F32, F64, U8

N_IMAGES = 4
# Of each precision: sums in another order; in fp16 rounding in other places, as fused operators do (which moved FYD's
# scores by 0.2 % and its maps by 0.1 %); in int8 activations that fall on the other side of a step.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}


def compare(predictor: Predictor, source: Bundle, precision: Precision, images: U8) -> Agreement:
    """Run both on (N, H, W, 3) pictures; the differences are relative to the largest score and the largest pixel."""
    reference = open_local(source, "onnx", precision, threads=0)
    expected, got = reference.predict(images), predictor.predict(images)
    reference.close()
    return Agreement(len(images), _difference(got.scores, expected.scores), _difference(got.maps, expected.maps))


def require(agreement: Agreement, precision: Precision, where: Path) -> None:
    """Raise BackendError where the differences are larger than a precision explains."""
    worst, allowed = max(agreement.score, agreement.map), TOLERANCES[precision]
    if not worst <= allowed:
        raise BackendError(
            f"{where}: scores differ from ONNX Runtime's by {agreement.score:.2g} and maps by {agreement.map:.2g} of "
            f"the largest value, expected at most {allowed:g} in {precision}; do not use it, and report the versions"
        )


def noise(source: Bundle, n: int = N_IMAGES) -> U8:
    """Sheets (n, H, W, 3) as the bundle takes them, the same every time: every value occurs."""
    sheet = source.sheet
    return np.random.default_rng(0).integers(0, 256, (n, sheet.height, sheet.width, 3), dtype=np.uint8)


def _difference(got: F64 | F32, expected: F64 | F32) -> float:
    """NaN where anything is not a number, which no tolerance allows."""
    scale: npt.NDArray[np.floating] = np.abs(expected).max()
    return float(np.abs(got - expected).max() / scale)
