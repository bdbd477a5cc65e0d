"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.contract import INPUT_NAME
from engine.errors import BackendError, MissingExtraError
from engine.serving.network import NOTHING, Array
from engine.types import U8


class OpenvinoNetwork:
    """An ONNX file compiled by OpenVINO for the CPU with `threads` threads (0: all cores), in float32.

    OpenVINO would pick bfloat16 by itself on CPUs that have it; scores must be the same on every machine, so the
    precision is the graph's.
    """

    backend = "openvino"

    def __init__(self, path: Path, threads: int) -> None:
        core = _core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
            self._request = compiled.create_infer_request()
        except Exception as error:  # OpenVINO raises RuntimeError and its own types; this is the edge
            raise BackendError(f"{path}: OpenVINO cannot load it: {error}") from error
        self._takes = [given.get_names() for given in compiled.inputs]  # what passes through unchanged has two names
        self._gives = [output.get_names() for output in compiled.outputs]
        self._lock = threading.Lock()  # one request, whose outputs the next inference overwrites

    def run(self, images: U8, common: Mapping[str, Array] = NOTHING) -> Mapping[str, Array]:
        """See `Network.run`."""
        try:
            tensors = {INPUT_NAME: images, **common}
            given = [next(tensors[name] for name in names if name in tensors) for names in self._takes]
            with self._lock:
                self._request.infer(given, share_inputs=True)
                outputs = [self._request.get_output_tensor(i).data.copy() for i in range(len(self._gives))]
            return {name: array for names, array in zip(self._gives, outputs, strict=True) for name in names}
        except Exception as error:  # as above
            raise BackendError(f"OpenVINO failed on a batch of shape {images.shape}: {error}") from error

    def close(self) -> None:
        """Release the compiled model."""
        del self._request


def available() -> bool:
    """Whether the package is installed."""
    try:
        _core()
    except MissingExtraError:
        return False
    return True


def _core() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("backend 'openvino'", "openvino") from None
    return openvino.Core()
