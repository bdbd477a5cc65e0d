"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from engine.contract import INPUT_NAME
from engine.errors import BackendError
from engine.machine import cpu_count
from engine.serving.network import Array
from engine.types import U8


class OnnxNetwork:
    """An ONNX file executed by ONNX Runtime with `threads` threads (0: all cores).

    A batch is cut into one part per thread, and each part runs on one thread from the first operator to the last. The
    networks have many small operators: threads that share each of them wait for one another, asleep (slow) or spinning
    (on cores that decoding needs). Only a batch with fewer pictures than threads shares its operators.
    """

    backend = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads or cpu_count()
        self._parts = _session(path, 1)
        self._shared = self._parts if self._threads == 1 else _session(path, self._threads)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="onnx")

    def run(self, images: U8) -> Sequence[Array]:
        """See `Network.run`."""
        try:
            if len(images) < self._threads or self._threads == 1:
                return _run(self._shared, images)
            parts = np.array_split(images, self._threads)
            outputs = list(self._pool.map(lambda part: _run(self._parts, part), parts))
        except Exception as error:  # ONNX Runtime raises many unrelated types; this is the edge
            raise BackendError(f"ONNX Runtime failed on a batch of shape {images.shape}: {error}") from error
        return [np.concatenate(output) for output in zip(*outputs, strict=True)]

    def close(self) -> None:
        """Release the sessions."""
        self._pool.shutdown()
        del self._parts, self._shared


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise BackendError(f"{path}: ONNX Runtime {ort.__version__} cannot load it: {error}") from error


def _run(session: ort.InferenceSession, images: U8) -> Sequence[Array]:
    outputs: Sequence[Array] = session.run(None, {INPUT_NAME: images})
    return outputs
