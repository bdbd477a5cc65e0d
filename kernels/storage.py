"""Numbers of 32 and of 16 bits: 16-bit ones are kept as their bits in uint16, which every NumPy can hold."""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from kernels.errors import KernelError

Storage = Literal["float32", "float16", "bfloat16"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U16 = npt.NDArray[np.uint16]
Stored = F32 | U16

ITEM_BYTES: dict[Storage, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
DTYPES: dict[Storage, type[np.float32] | type[np.uint16]] = {
    "float32": np.float32,
    "float16": np.uint16,
    "bfloat16": np.uint16,
}

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def empty(shape: tuple[int, ...], storage: Storage) -> Stored:
    """An uninitialised array on a 64-byte boundary, so that no vector of a factor straddles two cache lines."""
    count = math.prod(shape)
    item = ITEM_BYTES[storage]
    memory = np.empty(count * item + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return cast(Stored, memory[start : start + count * item].view(DTYPES[storage]).reshape(shape))


def check(storage: Storage) -> Storage:
    """The name of a storage format; raises KernelError for another one."""
    if storage not in ITEM_BYTES:
        raise KernelError(f"storage: expected one of {', '.join(ITEM_BYTES)}, got {storage!r}")
    return storage


def encode(values: F32, storage: Storage) -> Stored:
    """Finite values in a storage format, rounded to nearest even; raises KernelError where float16 is too narrow."""
    if storage == "float32":
        return values
    if storage == "float16":
        largest = float(np.abs(values).max(initial=0.0))
        if largest > _FLOAT16_MAX:
            raise KernelError(f"storage: float16 ends at {_FLOAT16_MAX:g}, got {largest:g}; use bfloat16")
        return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def decode(stored: Stored, storage: Storage) -> F32:
    """The float32 values of stored numbers, exactly."""
    if storage == "float32":
        return cast(F32, stored)
    if storage == "float16":
        return stored.view(np.float16).astype(np.float32)
    return (stored.astype(np.uint32) << 16).view(np.float32)
