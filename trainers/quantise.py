"""An ONNX network in int8: static QDQ quantisation by ONNX Runtime, calibrated on training pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engine.contract import INPUT_NAME
from engine.types import U8

INT8_OPS = ["Conv", "Add"]


def quantise(network: Path, out: Path, batches: Iterator[U8]) -> None:
    """Write the int8 form of an ONNX file: weights per channel, activations by the range seen on `batches`.

    `batches` are (n, H, W, 3) uint8 RGB pictures.
    """
    ...
