"""Opens the predictor that a configuration asks for; `auto` measures and remembers.

Which runtime is faster depends on the network and on the machine, so `auto` times each installed one on the bundle
itself, in a process of its own (two runtimes in one process fight over threads), and keeps the outcome in the user's
cache folder. Precision `auto` is always fp32: int8 scores differ from fp32 ones, so changing to it is a decision.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
import platformdirs

from engine import bundle as bundles
from engine import cascade
from engine.bundle import Bundle
from engine.cascade import DEFAULT_BOUND, exit_limit
from engine.config import Runtime, Triton
from engine.contract import Calibration, Precision
from engine.errors import BackendError, UsageError
from engine.machine import cpu_count, cpu_name, gpu
from engine.plans import library
from engine.serving import tensorrt
from engine.serving.base import Predictor
from engine.serving.detector import Detector
from engine.serving.ensemble import Cascade, Ensemble, by_themselves, here
from engine.serving.fallback import FallbackPredictor
from engine.serving.network import Network
from engine.serving.onnx import OnnxNetwork
from engine.serving.openvino import OpenvinoNetwork
from engine.serving.openvino import available as openvino_available
from engine.serving.triton import TritonPredictor

log = logging.getLogger(__name__)

Local = Literal["onnx", "openvino", "tensorrt"]
TRITON = Triton()  # where nothing is said of the server
_TIMEOUT_S: Mapping[Local, int] = {"onnx": 120, "openvino": 120, "tensorrt": 900}  # a plan may have to be built first


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and, where `auto` chose it, the frames/s that each candidate reached."""

    backend: Local
    frames_per_s: Mapping[str, float]


def open_predictor(bundle: Bundle, runtime: Runtime, batch_size: int, triton: Triton = TRITON) -> Predictor:
    """Load a bundle on the configured backend; a tritonserver need not be there yet.

    Raises BundleError where the precision was not calibrated, MissingExtraError or BackendError where the backend
    cannot be used here.
    """
    precision = choose_precision(runtime)
    if bundle.tiled and runtime.backend in ("triton", "tensorrt"):
        raise UsageError(
            f"runtime.backend = {runtime.backend!r}: {bundle.path} is tiled, those run in-process on the CPU; "
            f"use 'auto', 'onnx' or 'openvino'"
        )
    if runtime.backend == "triton":
        return _open_triton(bundle, runtime, batch_size, triton)
    backend = choose_backend(bundle, runtime, batch_size).backend
    return open_local(bundle, backend, precision, runtime.threads)


def _open_triton(bundle: Bundle, runtime: Runtime, batch_size: int, triton: Triton) -> Predictor:
    """A client of the server for each model, with an in-process backend behind it where one is configured."""
    precision = choose_precision(runtime)

    def one(model: Bundle) -> Predictor:
        server = TritonPredictor(model, precision, triton, batch_size)
        if triton.fallback == "off":
            return server
        local = open_predictor(model, msgspec.structs.replace(runtime, backend=triton.fallback), batch_size)
        return FallbackPredictor(server, local)

    return Ensemble(bundle, precision, by_themselves(one)) if bundle.members else one(bundle)


def choose_precision(runtime: Runtime) -> Precision:
    """The executable that a configuration means."""
    return "fp32" if runtime.precision == "auto" else runtime.precision


def choose_backend(bundle: Bundle, runtime: Runtime, batch_size: int) -> Choice:
    """The configured backend, or for `auto` the fastest one here, measured once per machine and bundle."""
    if runtime.backend in get_args(Local):
        return Choice(runtime.backend, {})  # type: ignore[arg-type]
    if runtime.backend != "auto":
        raise UsageError(
            f"runtime.backend = {runtime.backend!r} does not run in this process; "
            f"use 'auto', 'onnx', 'openvino' or 'tensorrt'"
        )
    candidates = tuple(name for name in local_backends() if name != "tensorrt" or not bundle.tiled)
    if len(candidates) == 1:
        return Choice(candidates[0], {})
    rates = _cached_rates(bundle, choose_precision(runtime), candidates, runtime.threads, batch_size)
    return Choice(max(candidates, key=lambda name: rates[name]), rates)


def local_backends() -> tuple[Local, ...]:
    """The in-process backends that are installed and can run here."""
    usable: dict[Local, bool] = {
        "onnx": True,
        "openvino": openvino_available(),
        "tensorrt": tensorrt.why_not() is None,
    }
    return tuple(name for name, can in usable.items() if can)


def open_local(bundle: Bundle, backend: Local, precision: Precision, threads: int) -> Predictor:
    """Load a bundle on a named in-process backend."""
    if backend == "tensorrt":
        return _open_tensorrt(bundle, precision)

    def network(path: Path) -> Network:
        return OnnxNetwork(path, threads) if backend == "onnx" else OpenvinoNetwork(path, threads)

    if bundle.members:
        return Ensemble(bundle, precision, here(bundle, precision, network, threads))
    return Detector(bundle, precision, network(bundle.file(bundle.executable(precision).network)), threads)


def _open_tensorrt(bundle: Bundle, precision: Precision) -> Predictor:
    """A plan for each model."""
    if bundle.members:
        return Ensemble(bundle, precision, by_themselves(lambda own: tensorrt.open_detector(own, precision)))
    return tensorrt.open_detector(bundle, precision)


def open_cascade(bundle: Bundle, predictor: Predictor, runtime: Runtime, calibration: Calibration) -> Cascade | None:
    """The cascade that a configuration asks for, None where it is off, the bundle is one model or no frame would exit.

    `calibration` has the thresholds in force: a frame exits only where the ensemble would call it good.
    """
    if runtime.cascade == "off" or not isinstance(predictor, Ensemble):
        return None
    spec = bundle.ensemble(choose_precision(runtime))
    bound = DEFAULT_BOUND if runtime.cascade == "auto" else runtime.cascade
    frames = cascade.read(bundle.file(spec.frames))
    mixture = cascade.Mixture(tuple(member.weight for member in spec.members), spec.rule)
    limit = exit_limit(frames, mixture, calibration.not_good_from, bound)
    return Cascade(predictor, limit) if np.isfinite(limit.surprise) else None


def _cached_rates(
    bundle: Bundle, precision: Precision, candidates: tuple[Local, ...], threads: int, batch_size: int
) -> dict[str, float]:
    key = _key(bundle, precision, candidates, threads, batch_size)
    path = Path(platformdirs.user_cache_dir("anomaly-engine")) / "backends" / f"{key}.json"
    try:
        return {name: float(rate) for name, rate in json.loads(path.read_text()).items()}
    except (OSError, ValueError):
        pass
    rates: dict[str, float] = {name: _measure(bundle, precision, name, threads, batch_size) for name in candidates}
    log.info("backends measured: %s", ", ".join(f"{name} {rate:.0f} frames/s" for name, rate in rates.items()))
    if not any(rates.values()):
        raise BackendError(f"{bundle.path}: no backend runs it here (tried {', '.join(candidates)}); see the log above")
    _remember(path, rates)
    return rates


def _key(bundle: Bundle, precision: Precision, candidates: tuple[Local, ...], threads: int, batch_size: int) -> str:
    """What the measured rates depend on, as a file name."""
    versions = [f"{name}={_version(name)}" for name in candidates]
    models = bundle.members.values() or [bundle]
    networks = [model.executable(precision).network.sha256 for model in models]
    if bundle.members:
        networks += [member.network.sha256 for member in bundle.ensemble(precision).members if member.network]
    parts = [*networks, precision, *versions, cpu_name(), str(cpu_count()), str(gpu()), str(threads), str(batch_size)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _version(backend: Local) -> str:
    if backend == "tensorrt":
        found = library.find()
        return f"{found.name} {found.version}"
    return metadata.version("onnxruntime" if backend == "onnx" else backend)


def _measure(bundle: Bundle, precision: Precision, backend: Local, threads: int, batch_size: int) -> float:
    """Frames/s of one backend in a process of its own; 0 where it cannot run this bundle."""
    command = [sys.executable, "-m", "engine.serving.timing", str(bundle.path), precision, backend]
    command += [str(threads), str(batch_size)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S[backend], check=False)
    except subprocess.TimeoutExpired:
        log.warning("backend %s: no answer for %d s on %s", backend, _TIMEOUT_S[backend], bundle.path)
        return 0.0
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        log.warning("backend %s cannot run %s here: %s", backend, bundle.path, why)
        return 0.0
    return float(done.stdout)


def _remember(path: Path, rates: Mapping[str, float]) -> None:
    """Write the cache file whole or not at all; a cache that cannot be written costs time at the next start only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(dict(rates), file)
        Path(file.name).replace(path)
    except OSError as error:
        log.warning("%s: the measured backend speeds cannot be kept (%s)", path, error)


def read_and_open(
    path: str | Path, runtime: Runtime, batch_size: int, triton: Triton = TRITON
) -> tuple[Bundle, Predictor]:
    """Verify a bundle folder and load it."""
    bundle = bundles.read(path)
    return bundle, open_predictor(bundle, runtime, batch_size, triton)
