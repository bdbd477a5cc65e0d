"""The Mahalanobis map on a device.

Letters: N batch, C channels, h w grid.
"""

from __future__ import annotations

from typing import Any, get_args

from kernels import _launch
from kernels.cuda.arrays import View, stream_of, view
from kernels.cuda.driver import Device, device_of
from kernels.cuda.model import DeviceGaussian, upload
from kernels.errors import KernelError, ShapeError
from kernels.gaussian import Gaussian
from kernels.storage import Storage


def mahalanobis_map(features: Any, model: Gaussian | DeviceGaussian, out: Any = None) -> Any:
    """`kernels.mahalanobis_map` of arrays on a device, on the current stream of the features' library.

    Returns `out`, or a new PyCUDA array. With `out` given nothing is allocated after the first call, so that calls can
    be captured into a graph.
    """
    stream = stream_of(features)
    x = checked_features(view(features, stream), model.channels, model.grid)
    shape = (x.shape[0], *model.grid)
    device = device_of(x.address)
    if isinstance(model, Gaussian):
        model = upload(model, device)
    result = device.empty(shape) if out is None else out
    y = checked_out(view(result, stream), shape)
    if x.shape[0]:
        device.launch(plan(device, arguments(x, model, y)), stream)
    return result


def checked_features(x: View, channels: int, grid: tuple[int, int]) -> View:
    """Features of the model's shape and a number that the kernel reads, else ShapeError."""
    expected = (channels, *grid)
    if len(x.shape) != 4 or x.shape[1:] != expected:
        raise ShapeError(f"features: expected (N, C, h, w) with (C, h, w) = {expected}, got {x.shape}")
    if x.number not in get_args(Storage):
        raise ShapeError(f"features: expected float32, float16 or bfloat16, got {x.number}; convert them to float32")
    if channels > _launch.MAX_CHANNELS:
        raise ShapeError(f"features: expected at most {_launch.MAX_CHANNELS} channels on a device, got {channels}")
    return x


def checked_out(out: View, shape: tuple[int, ...]) -> View:
    """An array that distances can be written to, else ShapeError."""
    if out.shape != shape or out.number != "float32" or not out.contiguous:
        raise ShapeError(f"out: expected a C-contiguous float32 array {shape}, got {out.number} {out.shape}")
    return out


def arguments(x: View, model: DeviceGaussian, out: View) -> bytes:
    """The problem as the kernels take it."""

    def address(array: View | None) -> int:
        return 0 if array is None else array.address

    return _launch.problem(
        features=x.address,
        features_number=x.number,
        shape=_four(x.shape),
        strides=_four(x.strides),
        factor=model.factor.address,
        factor_number=model.storage,
        mean=model.mean.address,
        scale=address(model.scale),
        weights=address(model.weights),
        tail=address(model.tail),
        rank=model.rank,
        out=out.address,
    )


def plan(device: Device, problem: bytes) -> _launch.Launch:
    """The kernel for a problem on a device."""
    try:
        return _launch.map(
            problem,
            device.multiprocessors,
            device.shared_per_block,
            device.shared_per_multiprocessor,
            *device.capability,
        )
    except ValueError as error:
        raise KernelError(f"CUDA: {device.name} cannot hold the problem ({error})") from error


def _four(values: tuple[int, ...]) -> _launch.Four:
    a, b, c, d = values
    return a, b, c, d
