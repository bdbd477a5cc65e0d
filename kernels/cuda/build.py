"""Compiles the kernels and keeps the result: `python -m kernels.cuda.build`.

With nvcc, one binary for all architectures; without, NVRTC compiles for one at a time, when a device is first used. The
result is kept in the user's cache under the digest of the sources, so it is compiled once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from platformdirs import user_cache_path

from kernels.cuda import nvcc, nvrtc
from kernels.cuda.sources import digest
from kernels.errors import KernelError

_FAT = "kernels.fatbin"
_REPORT = "kernels.json"


@dataclass(frozen=True, slots=True)
class Report:
    """The version of nvcc, and what each kernel takes on each architecture."""

    compiler: str
    resources: list[nvcc.Resources]


def cache_folder() -> Path:
    """Where compiled kernels of these sources are kept."""
    return user_cache_path("anomaly-engine") / "cuda" / digest()


def binary(architecture: str) -> bytes:
    """The kernels for a device: what was built before, else compiled now; raises KernelError where nothing can."""
    folder = cache_folder()
    for path in (folder / _FAT, folder / f"{architecture}.cubin"):
        if path.is_file():
            return path.read_bytes()
    path = _one(folder, architecture) if nvrtc.available() else build(folder)
    return path.read_bytes()


def build(folder: Path) -> Path:
    """Compile for all architectures with nvcc into a folder."""
    compiler = nvcc.find()
    if compiler is None:
        raise KernelError(
            "CUDA kernels: no compiler; pip install 'anomaly-engine[cuda]' (NVRTC), or install the CUDA toolkit (nvcc)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    new = _beside(folder / _FAT)
    report = Report(nvcc.version(compiler), nvcc.fat_binary(compiler, new))
    (folder / _REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return new.replace(folder / _FAT)


def report(folder: Path) -> Report:
    """What the compiler said of the binary that `build` made in a folder."""
    return msgspec.json.decode((folder / _REPORT).read_bytes(), type=Report)


def registers(made: Report) -> dict[str, dict[str, int]]:
    """Registers by architecture and kernel."""
    found: dict[str, dict[str, int]] = {}
    for entry in sorted(made.resources, key=lambda entry: entry.kernel):
        found.setdefault(entry.architecture, {})[entry.kernel] = entry.registers
    return dict(sorted(found.items()))


def _one(folder: Path, architecture: str) -> Path:
    """Compile for one architecture with NVRTC into a folder."""
    content = nvrtc.cubin(architecture)
    folder.mkdir(parents=True, exist_ok=True)
    new = _beside(folder / f"{architecture}.cubin")
    new.write_bytes(content)
    return new.replace(folder / f"{architecture}.cubin")


def _beside(path: Path) -> Path:
    """A name to write to before the file appears under its own, which other processes may be writing too."""
    return path.with_name(f"{path.name}.{os.getpid()}")


def main(arguments: list[str]) -> int:
    """Build, and say what."""
    parser = argparse.ArgumentParser(prog="python -m kernels.cuda.build", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the binary (default: the cache that `kernels` loads from)")
    parser.add_argument("--library", type=Path, metavar="FILE.so", help="also build the C functions of launch.cu")
    parser.add_argument("--record", type=Path, metavar="FILE.json", help="also write the registers of every kernel")
    options = parser.parse_args(arguments)
    folder = options.out or cache_folder()
    started = time.perf_counter()
    try:
        path = build(folder)
        if options.library and (compiler := nvcc.find()):
            nvcc.library(compiler, options.library)
    except KernelError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size} bytes in {time.perf_counter() - started:.0f} s")
    if options.record:
        made = report(folder)
        record = {"nvcc": made.compiler, "registers": registers(made)}
        options.record.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
