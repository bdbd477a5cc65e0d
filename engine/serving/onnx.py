"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from engine.contract import INPUT_NAME
from engine.errors import BackendError
from engine.serving.network import Array
from engine.types import U8


class OnnxNetwork:
    """An ONNX file executed by ONNX Runtime with `threads` threads (0: all cores).

    The pool's threads sleep between batches rather than spin, because decoding shares the cores with them.
    """

    backend = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises many unrelated types; this is the edge
            raise BackendError(f"{path}: ONNX Runtime {ort.__version__} cannot load it: {error}") from error

    def run(self, images: U8) -> Sequence[Array]:
        """See `Network.run`."""
        try:
            outputs: Sequence[Array] = self._session.run(None, {INPUT_NAME: images})
        except Exception as error:  # as above
            raise BackendError(f"ONNX Runtime failed on a batch of shape {images.shape}: {error}") from error
        return outputs

    def close(self) -> None:
        """Release the session."""
        del self._session
