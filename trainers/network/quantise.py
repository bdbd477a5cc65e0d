"""An ONNX network in int8: static QDQ quantisation by ONNX Runtime, with ranges seen on training pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engine.contract import INPUT_NAME
from engine.types import U8
from trainers.dataset.resized import Resized
from trainers.network import layers

QUANTISED_ON = 128  # training pictures whose activations set the ranges
_BATCH = 8
# All before the next one stays in float: half of the error is there, a tenth of the work, and ResNet's maximum pooling,
# which ONNX Runtime does twenty times slower on bytes than in float.
_FLOAT_CONVOLUTIONS = 3


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a runtime wants its Q/DQ pairs: before and after every one of `ops`, in uint8 with zero points.

    Where it is `symmetric`: before them only, in int8 around zero, biases in float. `seven_bits` leaves a bit of each
    weight unused.
    """

    ops: tuple[str, ...]
    symmetric: bool
    seven_bits: bool

    def options(self) -> dict[str, Any]:
        """As ONNX Runtime's quantiser names them."""
        if not self.symmetric:
            return {}
        inputs_only = {"OpTypesToExcludeOutputQuantization": list(self.ops)}
        return {"ActivationSymmetric": True, "QuantizeBias": False, **inputs_only}


# Convolutions and what follows them at once: an activation that is left out keeps its input's wider range. Weights keep
# seven bits, because with eight the 16-bit sums of processors without VNNI saturate, and scores would differ between
# machines.
CPU = Scheme(ops=("Conv", "Add", "Clip", "Relu"), symmetric=False, seven_bits=True)
# TensorRT knows no zero points, keeps biases in float, and fuses what follows a convolution into it where no pair of
# Q and DQ lies between.
TENSORRT = Scheme(ops=("Conv",), symmetric=True, seven_bits=False)


def samples(pictures: Resized) -> Iterator[U8]:
    """Batches of pictures spread evenly over a training set."""
    count = min(QUANTISED_ON, len(pictures))
    rows = np.linspace(0, len(pictures) - 1, count).round().astype(np.intp)
    return (pictures.take(rows[i : i + _BATCH]) for i in range(0, count, _BATCH))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of pictures as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterator[U8]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, U8] | None:
        images = next(self._batches, None)
        return None if images is None else {INPUT_NAME: images}


def quantise(network: Path, out: Path, batches: Iterator[U8], scheme: Scheme = CPU) -> None:
    """Write the int8 form of an ONNX file: weights per channel, activations by their range over `batches`.

    `batches` are (n, H, W, 3) uint8 RGB pictures.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
        with _root_logger_unchanged():
            quantize_static(
                prepared,
                out,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(scheme.ops),
                per_channel=True,
                reduce_range=scheme.seven_bits,
                activation_type=QuantType.QInt8 if scheme.symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_in_float(onnx.load(prepared)),
                extra_options=scheme.options(),
            )


@contextmanager
def _root_logger_unchanged() -> Iterator[None]:
    """ONNX Runtime logs through the root logger, which would then get a handler and print every message again."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _in_float(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that are not quantised: those before the first convolution that is, and moving averages.

    An ONNX graph is in topological order.
    """
    nodes = model.graph.node
    learnt = {node.name for node in layers.learnt(model)}
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    end = convolutions[_FLOAT_CONVOLUTIONS] if len(convolutions) > _FLOAT_CONVOLUTIONS else len(nodes)
    late = [nodes[place].name for place in convolutions if place >= end]
    return [node.name for node in nodes[:end]] + [name for name in late if name not in learnt]
