"""The Mahalanobis map as an operator of torch, so that networks which end in it can be traced, exported and explained.

Letters: N batch, C channels, h w grid, P = h * w positions, R rank.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import kernels
from kernels.cuda.arrays import stream_of, view
from kernels.cuda.model import DeviceGaussian
from kernels.errors import ShapeError
from kernels.gaussian import Gaussian
from kernels.storage import Storage, Stored
from trainers.network.slope import Parts, slope

_DTYPES: dict[Storage, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class Mahalanobis(torch.nn.Module):
    """Distances (N, h, w) of features (N, C, h, w) to a Gaussian, whose arrays are buffers of the module."""

    def __init__(self, gaussian: Gaussian) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(gaussian.mean))
        self.register_buffer("factor", _stored(gaussian.factor, gaussian.storage))
        for name in ("scale", "weights", "tail"):
            array = getattr(gaussian, name)
            self.register_buffer(name, None if array is None else torch.from_numpy(array))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, h, w) float32."""
        distances: Tensor = mahalanobis_map(features, self.mean, self.factor, self.scale, self.weights, self.tail)
        return distances


@torch.library.custom_op("anomaly_engine::mahalanobis_map", mutates_args=())
def mahalanobis_map(
    features: Tensor,
    mean: Tensor,
    factor: Tensor,
    scale: Tensor | None = None,
    weights: Tensor | None = None,
    tail: Tensor | None = None,
) -> Tensor:
    """`kernels.mahalanobis_map` of a Gaussian's arrays; the factor's dtype is its storage.

    Its gradient is that by the features (`trainers.network.slope`); the Gaussian's arrays have none.
    """
    out = torch.empty((features.shape[0], *mean.shape[:2]), dtype=torch.float32, device=features.device)
    parts = (scale, weights, tail)
    if features.is_cuda:
        _on_cuda(features, mean, factor, parts, out)
    else:
        _on_cpu(features, mean, factor, parts, out)
    return out


@mahalanobis_map.register_fake
def _fake(
    features: Tensor,
    mean: Tensor,
    factor: Tensor,
    scale: Tensor | None = None,
    weights: Tensor | None = None,
    tail: Tensor | None = None,
) -> Tensor:
    if features.dim() != 4:
        raise ShapeError(f"features: expected (N, C, h, w), got {tuple(features.shape)}")
    return features.new_empty((features.shape[0], *mean.shape[:2]), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    features, mean, factor, scale, weights, tail, distances = ctx.saved_tensors
    if not ctx.needs_input_grad[0]:
        return (None,) * 6
    parts = Parts(mean, factor, scale, weights, tail)
    return slope(features, parts, distances, gradient), None, None, None, None, None


mahalanobis_map.register_autograd(_backward, setup_context=_remember)


def _stored(factor: Stored, storage: Storage) -> Tensor:
    """A factor as a tensor of the dtype that it is stored in."""
    signed = factor if factor.dtype == np.float32 else factor.view(np.int16)  # torch knows little of uint16
    return torch.from_numpy(signed).view(_DTYPES[storage])


def _storage(factor: Tensor) -> Storage:
    for storage, dtype in _DTYPES.items():
        if factor.dtype == dtype:
            return storage
    raise ShapeError(f"factor: expected float32, float16 or bfloat16, got {factor.dtype}")


Optional = tuple[Tensor | None, Tensor | None, Tensor | None]


def _on_cpu(features: Tensor, mean: Tensor, factor: Tensor, parts: Optional, out: Tensor) -> None:
    scale, weights, tail = (None if part is None else part.numpy() for part in parts)
    gaussian = Gaussian(
        mean=mean.numpy(),
        factor=_bits(factor),
        storage=_storage(factor),
        eps=np.array(0.0),  # part of the factor; the map does not read it
        samples=0,
        scale=scale,
        weights=weights,
        tail=tail,
    )
    kernels.mahalanobis_map(_array(features), gaussian, out.numpy(), torch.get_num_threads())


def _on_cuda(features: Tensor, mean: Tensor, factor: Tensor, parts: Optional, out: Tensor) -> None:
    from kernels.cuda.map import mahalanobis_map as on_cuda

    stream = stream_of(features)
    scale, weights, tail = (None if part is None else view(part, stream) for part in parts)
    model = DeviceGaussian(view(mean, stream), view(factor, stream), _storage(factor), scale, weights, tail)
    on_cuda(features, model, out)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's memory as NumPy's, which has bfloat16 from ml_dtypes only."""
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _bits(factor: Tensor) -> Stored:
    """A factor as kernels.storage keeps it: 16-bit numbers as their bits."""
    array = _array(factor)
    return array if array.dtype == np.float32 else array.view(np.uint16)
