"""Memory that this process and a tritonserver both see, so that pictures and maps are not sent through a socket."""

from __future__ import annotations

import mmap
import os
import secrets
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.types import U8

ASK_S = 2.0  # for questions that a server answers at once, unless it hangs
_FOLDER = Path("/dev/shm")


class Region(Protocol):
    """A piece of memory under a name that the server knows; this process gives it back with the object."""

    name: str

    def write(self, images: U8) -> None:
        """Put (N, H, W, 3) pictures at its start."""

    def close(self, client: Any) -> None:
        """Let the server forget it, which it may have; raises tritonclient's exception where it has not."""


class SystemRegion:
    """POSIX shared memory. Its name is gone as soon as the server has mapped it: whoever is killed leaves nothing."""

    def __init__(self, client: Any, size_bytes: int) -> None:
        self.name = _name()
        path = _FOLDER / self.name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, size_bytes)
            self._memory = mmap.mmap(descriptor, size_bytes)
            client.register_system_shared_memory(self.name, f"/{self.name}", size_bytes, client_timeout=ASK_S)
        finally:
            os.close(descriptor)
            path.unlink()

    def write(self, images: U8) -> None:
        """See `Region.write`."""
        np.copyto(np.frombuffer(self._memory, np.uint8, images.size).reshape(images.shape), images)

    def read(self, dtype: npt.DTypeLike, shape: tuple[int, ...], offset_bytes: int) -> npt.NDArray[Any]:
        """A copy of an array in it."""
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, dtype, count, offset_bytes).reshape(shape).copy()

    def close(self, client: Any) -> None:
        """See `Region.close`."""
        client.unregister_system_shared_memory(self.name, client_timeout=ASK_S)


class CudaRegion:
    """Memory of the GPU that the server runs on: pictures are copied there once, by this process."""

    def __init__(self, client: Any, size_bytes: int) -> None:
        from tritonclient.utils import cuda_shared_memory as cuda

        self.name = _name()
        self._cuda = cuda
        self._handle = cuda.create_shared_memory_region(self.name, size_bytes, 0)
        weakref.finalize(self, cuda.destroy_shared_memory_region, self._handle)
        handle = cuda.get_raw_handle(self._handle)
        client.register_cuda_shared_memory(self.name, handle, 0, size_bytes, client_timeout=ASK_S)

    def write(self, images: U8) -> None:
        """See `Region.write`."""
        self._cuda.set_shared_memory_region(self._handle, [np.ascontiguousarray(images)])

    def close(self, client: Any) -> None:
        """See `Region.close`."""
        client.unregister_cuda_shared_memory(self.name, client_timeout=ASK_S)


def _name() -> str:
    return f"engine-{os.getpid()}-{secrets.token_hex(4)}"
