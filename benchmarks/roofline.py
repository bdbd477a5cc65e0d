"""The least time that a detector needs on a device: arithmetic, memory and the link to the host, whichever is slowest.

Letters: N batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from onnx import NodeProto

from engine.bundle import Bundle
from engine.contract import Precision
from kernels import Gaussian

Bound = Literal["arithmetic", "memory", "link"]


@dataclass(frozen=True, slots=True)
class Device:
    """What a device does at its best, measured: FLOP/s by the precision of factors, bytes/s of memory and link."""

    flops_per_s: dict[str, float]
    memory_bytes_per_s: float
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What one batch of a detector must do at the least; weights are read once a batch, everything else once a picture.

    `model_bytes` are weights and Gaussian, `in_bytes` the picture, `out_bytes` map and score.
    """

    flops: float
    model_bytes: float
    in_bytes: float
    out_bytes: float

    def least_s(self, n: int, precision: Precision, device: Device) -> tuple[float, Bound]:
        """Seconds for a batch of `n`, and what binds. Copies go one way at a time, beside the arithmetic."""
        arithmetic = n * self.flops / device.flops_per_s[precision]
        memory = (self.model_bytes + n * (self.in_bytes + self.out_bytes)) / device.memory_bytes_per_s
        link = n * (self.in_bytes + self.out_bytes) / device.link_bytes_per_s
        times: dict[Bound, float] = {"arithmetic": arithmetic, "memory": memory, "link": link}
        bound = max(times, key=lambda name: times[name])
        return times[bound], bound


def work_of(bundle: Bundle, precision: Precision) -> Work:
    """Of one executable."""
    executable, size = bundle.executable(precision), bundle.manifest.input
    pixels = size.height * size.width
    network = bundle.file(executable.network)
    flops, model_bytes = network_flops(network), float(network.stat().st_size)
    if executable.gaussian is not None:
        gaussian = Gaussian.load(bundle.file(executable.gaussian))
        flops += 2.0 * gaussian.factor.size
        model_bytes += gaussian.nbytes
    return Work(flops, model_bytes, 3.0 * pixels, 4.0 * pixels + 4)


def network_flops(path: Path) -> float:
    """FLOP of one picture in the layers that multiply by weights; the others count nothing."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        shapes[value.name] = [side.dim_value for side in value.type.tensor_type.shape.dim]
    return sum(_flops(node, shapes) for node in model.graph.node)


def _flops(node: NodeProto, shapes: dict[str, list[int]]) -> float:
    """Two per multiplication and addition; the batch, whose size is unknown, counts as one picture."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0.0
    weight, out = shapes[node.input[1]], shapes[node.output[0]][1:]
    if node.op_type == "Conv":  # (D, C / groups, kernel)
        return 2.0 * math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # (C, D / groups, kernel): every input is spread over a kernel
        return 2.0 * math.prod(shapes[node.input[0]][1:]) * math.prod(weight[1:])
    inner = shapes[node.input[0]][-1]
    return 2.0 * math.prod(out) * inner
