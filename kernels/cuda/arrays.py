"""Arrays of other libraries as pointers, without a copy: the CUDA array interface and DLPack.

The CUDA array interface has no bfloat16, so an array that offers both is read through DLPack. Both protocols name the
stream on which the memory is safe to use.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.errors import KernelError, ShapeError

DEFAULT_STREAM = 1  # the legacy default stream, in both protocols
CPU, CUDA, CUDA_MANAGED = 1, 2, 13  # DLPack's devices

# DLPack's type code, bits.
_NUMBERS = {(2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16", (0, 32): "int32", (1, 16): "uint16"}


@dataclass(frozen=True, slots=True)
class View:
    """An array in memory of a device: `strides` count elements; `owner` keeps the memory."""

    address: int
    number: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: object

    @property
    def contiguous(self) -> bool:
        """Whether elements lie one after the other, the last axis fastest."""
        if 0 in self.shape:
            return True
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True


def on_device(array: object) -> bool:
    """Whether an array lies in the memory of a CUDA device."""
    device = getattr(array, "__dlpack_device__", None)
    if device is not None and not isinstance(array, np.ndarray):
        return int(device()[0]) in (CUDA, CUDA_MANAGED)
    return hasattr(array, "__cuda_array_interface__")


def ordinal(array: Any) -> int | None:
    """The number of the device that an array lies on; None where it does not say."""
    device = getattr(array, "__dlpack_device__", None)
    return None if device is None else int(device()[1])


def stream_of(array: Any) -> int:
    """The stream on which work of the array's library is ordered now, as a handle."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return int(torch.cuda.current_stream(array.device).cuda_stream) or DEFAULT_STREAM
    stream = getattr(array, "__cuda_array_interface__", {}).get("stream")
    return DEFAULT_STREAM if stream is None else int(stream)


def view(array: Any, stream: int) -> View:
    """An array's memory, safe to use on a stream; raises KernelError for objects that are no arrays of a device."""
    if hasattr(array, "__dlpack__"):
        return from_dlpack(array, stream)
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise KernelError(
            f"array: expected one with __cuda_array_interface__ or __dlpack__, got {type(array).__name__}; "
            f"pass a torch, cupy or PyCUDA array"
        )
    return from_interface(interface, array)


def from_interface(interface: dict[str, Any], owner: object) -> View:
    """What a CUDA array interface (versions 2 and 3) describes."""
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(size) for size in interface["shape"])
    given = interface.get("strides")
    strides = row_major(shape) if given is None else tuple(_elements(step, dtype.itemsize) for step in given)
    return View(int(interface["data"][0]), dtype.name, shape, strides, owner)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _elements(step_bytes: int, item_bytes: int) -> int:
    if step_bytes % item_bytes:
        raise ShapeError(f"array: expected strides of whole elements of {item_bytes} bytes, got {step_bytes} bytes")
    return step_bytes // item_bytes


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """DLTensor, the first member of DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


def from_dlpack(array: Any, stream: int | None) -> View:
    """What an array exports through DLPack. The capsule stays unconsumed: it owns the memory until the view goes."""
    try:
        capsule = array.__dlpack__() if stream is None else array.__dlpack__(stream=stream)
    except (RuntimeError, TypeError, ValueError, BufferError) as error:
        raise KernelError(f"array: cannot be exported ({error}); detach it, or make it dense and plain") from error
    tensor = _Tensor.from_address(_pointer_of(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else row_major(shape)
    code, bits = tensor.dtype.code, tensor.dtype.bits
    number = _NUMBERS.get((code, bits)) if tensor.dtype.lanes == 1 else None
    return View(
        (tensor.data or 0) + tensor.byte_offset,
        number or f"DLPack type {code} of {bits} bits",
        shape,
        strides,
        capsule,
    )
