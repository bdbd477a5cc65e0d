"""An ONNX network in int8: static QDQ quantisation by ONNX Runtime, with ranges seen on training pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engine.contract import INPUT_NAME
from engine.types import U8

# Convolutions and what follows them at once: an activation that is left out keeps its input's wider range.
_OPS = ["Conv", "Add", "Clip", "Relu"]
# All before the next one stays in float: half of the error is there, a tenth of the work, and ResNet's maximum pooling,
# which ONNX Runtime does twenty times slower on bytes than in float.
_FLOAT_CONVOLUTIONS = 3


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
    sums of processors without VNNI saturate, and scores would differ between machines.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPS,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_first(onnx.load(prepared)),
        )


def _first(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first convolution that is quantised; an ONNX graph is in topological order."""
    nodes = model.graph.node
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    end = convolutions[_FLOAT_CONVOLUTIONS] if len(convolutions) > _FLOAT_CONVOLUTIONS else len(nodes)
    return [node.name for node in nodes[:end]]
