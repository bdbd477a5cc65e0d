"""NVIDIA's compiler driver, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kernels.cuda.sources import FOLDER, LIBRARY, MAIN
from kernels.errors import KernelError

# Machine code for these, and PTX of the last for what comes after them.
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

_OPTIONS = ("-O3", "-std=c++17", "--expt-relaxed-constexpr", "--threads", "0")
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes on an architecture."""

    kernel: str
    architecture: str
    registers: int
    stack_bytes: int
    spill_bytes: int


def find() -> Path | None:
    """The compiler; None where there is none."""
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    return None if found is None else Path(found)


def version(nvcc: Path) -> str:
    """For example 13.0.88."""
    text = _run([nvcc, "--version"]).stdout
    found = re.search(r"V([\d.]+)", text)
    return found.group(1) if found else "unknown"


def fat_binary(nvcc: Path, out: Path, architectures: tuple[str, ...] = ARCHITECTURES) -> list[Resources]:
    """Compile the kernels into one file for all architectures; what they take there."""
    done = _run([nvcc, "-fatbin", "-Xptxas", "-v", *_targets(architectures), *_OPTIONS, "-o", out, FOLDER / MAIN])
    return resources(done.stderr)


def library(nvcc: Path, out: Path, architectures: tuple[str, ...] = ARCHITECTURES) -> None:
    """Compile the C functions of launch.cu and their kernels into a shared library."""
    shared = ("-shared", "-Xcompiler", "-fPIC")
    _run([nvcc, *shared, *_targets(architectures), *_OPTIONS, "-o", out, FOLDER / LIBRARY])


def resources(report: str) -> list[Resources]:
    """What `ptxas -v` reports of each kernel and architecture."""
    found = []
    entry, stack, spills = ("", ""), 0, 0
    for line in report.splitlines():
        if match := _ENTRY.search(line):
            entry = (match[1], match[2])
        elif match := _SPILLS.search(line):
            stack, spills = int(match[1]), int(match[2]) + int(match[3])
        elif match := _REGISTERS.search(line):
            found.append(Resources(*entry, int(match[1]), stack, spills))
    return found


def _targets(architectures: tuple[str, ...]) -> list[str]:
    numbers = [name.removeprefix("sm_") for name in architectures]
    machine = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    return [*machine, f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}"]


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"nvcc: ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done
