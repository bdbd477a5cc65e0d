"""What this machine is: read once, for caches, reports and `engine doctor`."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader", "--id=0")
_QUERY_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first NVIDIA device, as its driver names it."""

    name: str
    capability: tuple[int, int]
    driver: str


@cache
def gpu() -> Gpu | None:
    """The first NVIDIA device; None where there is no driver or no device."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_gpu(done.stdout) if done.returncode == 0 else None


def parse_gpu(line: str) -> Gpu | None:
    """`NVIDIA H100 80GB HBM3, 9.0, 580.82` -> a device; None for anything else that nvidia-smi may say."""
    fields = [field.strip() for field in line.strip().split(",")]
    major, _, minor = fields[1].partition(".") if len(fields) == 3 else ("", "", "")
    if not (major.isdigit() and minor.isdigit()):
        return None
    return Gpu(fields[0], (int(major), int(minor)), fields[2])


def cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(flags[0]) if flags else frozenset()


def cpu_count() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))
