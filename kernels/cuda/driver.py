"""Devices: their attributes, memory, and launches on a stream.

PyCUDA opens devices, shares the context of torch and cupy (the primary one) and owns memory. Launches do not go through
it: it only knows streams that it made itself, and work has to be ordered on the caller's.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import _launch
from kernels.cuda import build
from kernels.errors import KernelError

_POINTER_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
_FUNCTION_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_PARAMETERS, _PARAMETERS_SIZE = 1, 2  # CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE


class Device:
    """One device; `of` gives the same object for the same number."""

    def __init__(self, ordinal: int) -> None:
        device = _pycuda().Device(ordinal)
        attribute = _pycuda().device_attribute
        self.ordinal = ordinal
        self.name = str(device.name())
        self.capability: tuple[int, int] = device.compute_capability()
        self.multiprocessors = int(device.get_attribute(attribute.MULTIPROCESSOR_COUNT))
        self.shared_per_block = int(device.get_attribute(attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        self.shared_per_multiprocessor = int(device.get_attribute(attribute.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR))
        self._context = device.retain_primary_context()
        self._functions: dict[str, ctypes.c_void_p] = {}
        with self.current():
            self._module = _load(build.binary("sm_{}{}".format(*self.capability)))

    @staticmethod
    @cache
    def of(ordinal: int) -> Device:
        """The device of a number; raises KernelError where it cannot be used."""
        return Device(ordinal)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Work on this device."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def empty(self, shape: tuple[int, ...]) -> Any:
        """A float32 array of PyCUDA, which torch and cupy take without a copy."""
        from pycuda import gpuarray

        with self.current():
            return gpuarray.empty(shape, np.float32)

    def allocate(self, size_bytes: int) -> tuple[int, object]:
        """Memory, on a boundary of 256 bytes: its address, and what owns it."""
        with self.current():
            memory = _pycuda().mem_alloc(max(size_bytes, 1))
        return int(memory), memory

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of the host that the device copies to and from by itself."""
        with self.current():
            array: npt.NDArray[Any] = _pycuda().pagelocked_empty(shape, dtype)
        return array

    def upload(self, array: npt.NDArray[Any]) -> tuple[int, object]:
        """A copy of an array: its address, and what owns it."""
        address, memory = self.allocate(array.nbytes)
        with self.current():
            _pycuda().memcpy_htod(memory, np.ascontiguousarray(array))
        return address, memory

    def download(self, address: int, array: npt.NDArray[Any]) -> None:
        """Fill a C-contiguous array from memory of the device; waits for the legacy default stream."""
        with self.current():
            size, target = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(array.ctypes.data)
            call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), size)

    def launch(self, launch: _launch.Launch, stream: int) -> None:
        """Put a kernel on a stream."""
        name, blocks, threads, shared_bytes, arguments = launch
        size = ctypes.c_size_t(len(arguments))
        content = ctypes.create_string_buffer(arguments, len(arguments))
        extra = (ctypes.c_void_p * 5)(
            _PARAMETERS, ctypes.addressof(content), _PARAMETERS_SIZE, ctypes.addressof(size), None
        )
        shape = (blocks, 1, 1, threads, 1, 1, shared_bytes)
        with self.current():
            call("cuLaunchKernel", self._function(name), *shape, ctypes.c_void_p(stream), None, extra)

    def zero(self, address: int, shape: tuple[int, ...], stream: int) -> None:
        """Put zeros into a float32 array, on a stream."""
        count = ctypes.c_size_t(math.prod(shape))
        with self.current():
            call("cuMemsetD32Async", ctypes.c_uint64(address), ctypes.c_uint(0), count, ctypes.c_void_p(stream))

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            function = ctypes.c_void_p()
            call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
            call("cuFuncSetAttribute", function, _FUNCTION_SHARED, self.shared_per_block)
            self._functions[name] = function
        return self._functions[name]


def device_of(address: int) -> Device:
    """The device that memory belongs to."""
    _pycuda()  # opens the driver
    ordinal = ctypes.c_int()
    if address:
        call("cuPointerGetAttribute", ctypes.byref(ordinal), _POINTER_ORDINAL, ctypes.c_uint64(address))
    return Device.of(ordinal.value)


@cache
def _pycuda() -> Any:
    """PyCUDA's driver module with the driver opened."""
    try:
        import pycuda.driver as pycuda
    except ModuleNotFoundError as error:
        raise KernelError(
            f"CUDA: {error.name} is not installed; pip install 'anomaly-engine[cuda]', or pass NumPy arrays for the CPU"
        ) from error
    except ImportError as error:
        raise KernelError(
            f"CUDA: no driver on this machine ({error}); install NVIDIA's driver, or pass NumPy arrays for the CPU"
        ) from error
    try:
        pycuda.init()
    except pycuda.Error as error:
        raise KernelError(f"CUDA: no usable device ({error}); look at nvidia-smi") from error
    return pycuda


@cache
def _libcuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _load(binary: bytes) -> ctypes.c_void_p:
    module = ctypes.c_void_p()
    call("cuModuleLoadData", ctypes.byref(module), binary)
    return module


def call(function: str, *arguments: object) -> None:
    """Call the driver; raises KernelError in its words where it refuses."""
    status = getattr(_libcuda(), function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        _libcuda().cuGetErrorString(status, ctypes.byref(text))
        raise KernelError(f"CUDA: {function}: {(text.value or b'unknown error').decode()} ({status})")
