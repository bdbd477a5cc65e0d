"""Work in order on a device: copies, launches, and a recording of them that is launched again as one.

PyCUDA's streams cannot record, so these are the driver's own.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.cuda.driver import Device, call
from kernels.errors import ShapeError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_OF_THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A C-contiguous array on a device whose users are ordered by one stream; `owner` keeps the memory."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int
    owner: object

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """See numba's documentation; version 3 names the stream."""
        place = (self.address, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": place, "version": 3, "stream": self.stream}

    @property
    def size_bytes(self) -> int:
        """Of its memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def first(self, n: int) -> DeviceArray:
        """Its first `n` rows, the same memory."""
        if not 0 <= n <= self.shape[0]:
            raise ShapeError(f"rows: expected 0 to {self.shape[0]}, got {n}")
        return DeviceArray(self.address, (n, *self.shape[1:]), self.dtype, self.stream, self.owner)


class Stream:
    """A stream of a device. Every method puts work on it and returns, but `wait`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        handle = ctypes.c_void_p()
        with device.current():
            call("cuStreamCreate", ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING))
        self.handle = int(handle.value or 0)
        self._graphs: list[Graph] = []

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """An array whose users are ordered by this stream."""
        kind = np.dtype(dtype)
        address, owner = self.device.allocate(math.prod(shape) * kind.itemsize)
        return DeviceArray(address, shape, kind, self.handle, owner)

    def copy_in(self, source: npt.NDArray[Any], target: DeviceArray) -> None:
        """From a pinned array of the host."""
        _same(source, target)
        size = ctypes.c_size_t(source.nbytes)
        with self.device.current():
            call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(target.address), _pointer(source), size, self._itself())

    def copy_out(self, source: DeviceArray, target: npt.NDArray[Any]) -> None:
        """To a pinned array of the host, which holds the numbers after `wait`."""
        _same(target, source)
        size = ctypes.c_size_t(target.nbytes)
        with self.device.current():
            call("cuMemcpyDtoHAsync_v2", _pointer(target), ctypes.c_uint64(source.address), size, self._itself())

    def wait(self) -> None:
        """Until all of its work is done."""
        with self.device.current():
            call("cuStreamSynchronize", self._itself())

    @contextmanager
    def recording(self) -> Iterator[Graph]:
        """What is put on the stream inside is not done but recorded; the graph can be launched after the block."""
        graph = Graph(self)
        recorded = ctypes.c_void_p()
        with self.device.current():
            call("cuStreamBeginCapture_v2", self._itself(), ctypes.c_int(_OF_THIS_THREAD))
            try:
                yield graph
            finally:
                call("cuStreamEndCapture", self._itself(), ctypes.byref(recorded))
            graph.make(recorded)
        self._graphs.append(graph)

    def close(self) -> None:
        """Wait, and give back the stream and its graphs."""
        self.wait()
        with self.device.current():
            for graph in self._graphs:
                graph.destroy()
            call("cuStreamDestroy_v2", self._itself())

    def _itself(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.handle)


class Graph:
    """Recorded work of a stream, which launches as one. It reads and writes the arrays that it was recorded with."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._executable = ctypes.c_void_p()

    def make(self, recorded: ctypes.c_void_p) -> None:
        """Ready a recording for launches."""
        call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), recorded, ctypes.c_ulonglong(0))
        call("cuGraphDestroy", recorded)

    def destroy(self) -> None:
        """Give it back; it is not launched afterwards."""
        call("cuGraphExecDestroy", self._executable)

    def launch(self) -> None:
        """Put it on its stream."""
        with self._stream.device.current():
            call("cuGraphLaunch", self._executable, ctypes.c_void_p(self._stream.handle))


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _same(host: npt.NDArray[Any], device: DeviceArray) -> None:
    """Raise ShapeError unless a copy between the two is one run of bytes."""
    if host.shape != device.shape or host.dtype != device.dtype or not host.flags.c_contiguous:
        raise ShapeError(
            f"copy: expected a C-contiguous {device.dtype} array {device.shape}, got {host.dtype} {host.shape}"
        )
