"""An ONNX network in int8: static QDQ quantisation by ONNX Runtime, with ranges seen on training pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from engine.contract import INPUT_NAME
from engine.types import U8

_OPS = ["Conv", "Add"]
_FLOAT_CONVS = 3  # the first ones see few channels of raw picture: most of the error, little of the work


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of pictures as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterator[U8]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, U8] | None:
        images = next(self._batches, None)
        return None if images is None else {INPUT_NAME: images}


def quantise(network: Path, out: Path, batches: Iterator[U8]) -> None:
    """Write the int8 form of an ONNX file: weights per channel, activations by their range over `batches`.

    `batches` are (n, H, W, 3) uint8 RGB pictures. Weights keep 7 bits (`reduce_range`), because with 8 the 16-bit
    sums of processors without VNNI saturate and scores would differ between machines.
    """
    model = onnx.load(network)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    quantize_static(
        model,
        out,
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_OPS,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=convolutions[:_FLOAT_CONVS],
    )
