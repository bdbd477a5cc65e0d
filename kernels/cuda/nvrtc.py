"""NVIDIA's run-time compiler, from the system or from the PyPI package nvidia-cuda-nvrtc, through ctypes."""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from pathlib import Path

from kernels.cuda.sources import FOLDER, MAIN, headers
from kernels.errors import KernelError

_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")

# The compiler knows no standard library; these are the parts of it that the sources name.
_STANDARD = {
    "cstddef": "namespace std { using size_t = decltype(sizeof 0); using ptrdiff_t = long; }",
    "cstdint": "namespace std { using uint16_t = unsigned short; using uint32_t = unsigned int; using int32_t = int; }",
}


def available() -> bool:
    """Whether the library is there."""
    return _library() is not None


def version() -> str:
    """For example 13.0."""
    major, minor = c_int(), c_int()
    _check(_expect().nvrtcVersion(byref(major), byref(minor)))
    return f"{major.value}.{minor.value}"


def cubin(architecture: str) -> bytes:
    """The kernels for an architecture such as sm_90."""
    library, program = _expect(), c_void_p()
    texts = _STANDARD | headers()
    names = [name.encode() for name in texts]
    contents = [text.encode() for text in texts.values()]
    count = len(texts)
    array = c_char_p * count
    source = (FOLDER / MAIN).read_bytes()
    _check(
        library.nvrtcCreateProgram(byref(program), source, MAIN.encode(), count, array(*contents), array(*names)),
    )
    try:
        options = [f"-arch={architecture}", "-std=c++17", "--device-as-default-execution-space"]
        given = (c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), given):
            raise KernelError(f"NVRTC {version()}: cannot compile {MAIN} for {architecture}: {_text(program)}")
        return _bytes(program, "nvrtcGetCUBIN")
    finally:
        library.nvrtcDestroyProgram(byref(program))


@cache
def _library() -> ctypes.CDLL | None:
    for path in _packaged("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)  # the compiler asks for it by name, and does not look beside itself
    for name in (*_packaged("libnvrtc.so.*"), *_NAMES):
        try:
            return ctypes.CDLL(str(name))
        except OSError:
            continue
    return None


def _packaged(pattern: str) -> list[Path]:
    """Files of PyPI's packages: in nvidia/cu13/lib, or in nvidia/cuda_nvrtc/lib up to CUDA 12."""
    found = importlib.util.find_spec("nvidia")
    folders = [] if found is None else list(found.submodule_search_locations or ())
    return sorted((path for folder in folders for path in Path(folder).glob(f"*/lib/{pattern}")), reverse=True)


def _expect() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise KernelError("NVRTC: not found; pip install 'anomaly-engine[cuda]', or install the CUDA toolkit")
    return library


def _check(status: int) -> None:
    if status:
        name = _expect().nvrtcGetErrorString
        name.restype = c_char_p
        raise KernelError(f"NVRTC: {name(status).decode()}")


def _text(program: c_void_p) -> str:
    return _bytes(program, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace").strip()


def _bytes(program: c_void_p, getter: str) -> bytes:
    library, size = _expect(), c_size_t()
    _check(getattr(library, f"{getter}Size")(program, byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check(getattr(library, getter)(program, content))
    return content.raw
