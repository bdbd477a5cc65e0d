"""Arrays of a device as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.arrays import stream_of, view
from kernels.cuda.driver import device_of
from kernels.errors import ShapeError
from kernels.storage import F32


def download(array: Any) -> F32:
    """A copy of a C-contiguous float32 array on a device, once the work of its library on it is done."""
    x = view(array, stream_of(array))
    if x.number != "float32" or not x.contiguous:
        raise ShapeError(f"array: expected C-contiguous float32, got {x.number} {x.shape}")
    copy = np.empty(x.shape, np.float32)
    if copy.size:
        device_of(x.address).download(x.address, copy)
    return copy
