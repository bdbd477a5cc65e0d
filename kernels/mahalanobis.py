"""The batched Mahalanobis map, and its definition.

d(x)[n, i, j] = sqrt((x - mean)^T Sigma^-1 (x - mean)) at every position, equation (7) of FYD.
Letters: N batch, C channels, h w grid, P = h * w positions.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from kernels import _cpu
from kernels.cuda.arrays import on_device
from kernels.errors import ShapeError
from kernels.gaussian import Gaussian
from kernels.machine import BEST, thread_count
from kernels.storage import F32, F64


@overload
def mahalanobis_map(features: npt.NDArray[Any], model: Gaussian, out: F32 | None = None, threads: int = 0) -> F32: ...
@overload
def mahalanobis_map(features: Any, model: Gaussian, out: Any = None, threads: int = 0) -> Any: ...
def mahalanobis_map(features: Any, model: Gaussian, out: Any = None, threads: int = 0) -> Any:
    """Distances (N, h, w) of features (N, C, h, w) to the model's Gaussians.

    Features are float32, float16 or bfloat16 (ml_dtypes) with any strides; where one is NaN or infinite, so is that
    distance (NaN in general) and no other. `out` is a C-contiguous (N, h, w) array to fill; `threads` 0 means every
    core this process may use. Raises ShapeError for other shapes or dtypes. The interpreter lock is released.

    Features on a CUDA device (torch, cupy, PyCUDA, anything with DLPack or __cuda_array_interface__) stay there: the
    map is computed on their library's current stream into `out`, or a new PyCUDA array. The model is copied to the
    device once. Raises KernelError where driver, compiler or PyCUDA are missing.
    """
    if not isinstance(features, np.ndarray) and on_device(features):
        from kernels.cuda.map import mahalanobis_map as on_cuda

        return on_cuda(features, model, out)
    return run(features, model, out, threads, BEST)


def run(features: npt.NDArray[Any], model: Gaussian, out: F32 | None, threads: int, isa: str) -> F32:
    """`mahalanobis_map` by one of machine.INSTRUCTION_SETS."""
    expected = (model.channels, *model.grid)
    if features.ndim != 4 or features.shape[1:] != expected:
        raise ShapeError(f"features: expected (N, C, h, w) with (C, h, w) = {expected}, got {features.shape}")
    shape = (features.shape[0], *model.grid)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ShapeError(f"out: expected a writable C-contiguous float32 array {shape}, got {out.dtype} {out.shape}")
    numbers, name = _numbers(features)
    _cpu.map(
        numbers,
        name,
        model.factor,
        model.storage,
        model.mean,
        model.scale,
        model.weights,
        model.tail,
        out,
        thread_count(threads),
        isa,
    )
    return out


def _numbers(features: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """The features as the kernel takes them, 16-bit numbers as their bits, and the name of their format."""
    name = features.dtype.name
    if name not in ("float32", "float16", "bfloat16") or not features.dtype.isnative:
        raise ShapeError(
            f"features: expected float32, float16 or bfloat16, got {features.dtype}; use features.astype(numpy.float32)"
        )
    if not features.flags.aligned:
        features = features.copy()
    return (features if name == "float32" else features.view(np.uint16)), name


def reference(features: npt.NDArray[Any], mean: npt.NDArray[Any], covariance: npt.NDArray[Any]) -> F64:
    """The definition in float64: distances (N, h, w) of features (N, C, h, w), mean (h, w, C), Sigma (h, w, C, C)."""
    y = features.astype(np.float64).transpose(2, 3, 1, 0) - mean.astype(np.float64)[..., None]  # (h, w, C, N)
    squared: F64 = np.einsum("hwcn,hwcn->nhw", y, np.linalg.solve(covariance.astype(np.float64), y))
    return np.sqrt(squared)
