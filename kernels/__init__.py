"""Kernels: a Gaussian per position, and the batched Mahalanobis map of features to it.

    model = fit(features)                       # (K, C, h, w) of good pictures
    distances = mahalanobis_map(others, model)  # (N, h, w)

See README.md for the mathematics, the memory layout and measurements.
"""

from kernels.accumulate import Accumulator, fit
from kernels.errors import KernelError, ModelFileError, ShapeError, SingularError, TooManyBytesError
from kernels.gaussian import Gaussian, Truncation
from kernels.layout import Factorisation, model_bytes
from kernels.mahalanobis import mahalanobis_map, reference
from kernels.storage import Storage

__all__ = [
    "Accumulator",
    "Factorisation",
    "Gaussian",
    "KernelError",
    "ModelFileError",
    "ShapeError",
    "SingularError",
    "Storage",
    "TooManyBytesError",
    "Truncation",
    "fit",
    "mahalanobis_map",
    "model_bytes",
    "reference",
]
