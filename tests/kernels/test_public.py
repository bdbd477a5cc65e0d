"""The public names, and what importing them costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import kernels


def test_public_names():
    assert kernels.__all__ == [
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
    assert all(hasattr(kernels, name) for name in kernels.__all__)


def test_signatures():
    assert list(inspect.signature(kernels.mahalanobis_map).parameters) == ["features", "model", "out", "threads"]
    assert list(inspect.signature(kernels.fit).parameters)[:2] == ["features", "eps"]


def test_errors_are_value_errors():
    names = [name for name in kernels.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(kernels, name), ValueError) for name in names)


def test_nothing_else_is_imported():
    code = "import kernels, sys; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"engine", "trainers", "torch", "ml_dtypes", "scipy"} & set(loaded)
