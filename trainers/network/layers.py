"""The layers of an ONNX network that multiply by learnt weights: what float16 and int8 are for."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

_OPS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def learnt(model: ModelProto) -> list[NodeProto]:
    """Convolutions and linear layers, in order.

    A convolution by the same window for every channel is none: it is a moving average, as in the structural similarity,
    whose variances cancel in fewer digits.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in _OPS and node.input[1] in weights]
    return [node for node in layers if not _is_window(numpy_helper.to_array(weights[node.input[1]]))]


def _is_window(kernel: np.ndarray) -> bool:
    """(C, 1, h, w) of equal (h, w), C > 1."""
    per_channel = kernel.ndim == 4 and kernel.shape[0] > 1 and kernel.shape[1] == 1
    return per_channel and bool((kernel == kernel[:1]).all())
