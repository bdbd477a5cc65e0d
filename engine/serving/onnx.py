"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from engine.contract import INPUT_NAME
from engine.errors import BackendError
from engine.machine import cpu_count
from engine.serving.network import NOTHING, Array
from engine.types import U8


class OnnxNetwork:
    """An ONNX file executed by ONNX Runtime with `threads` threads (0: all cores).

    Every picture of a batch is run by itself, on one thread from the first operator to the last. The networks have many
    small operators: threads that share each of them wait for one another, asleep (slow) or spinning (on cores that
    decoding needs); and the activations of one picture stay in a core's cache where those of several do not (measured:
    four pictures at a time cost 12 % more each in float32 and 60 % more in int8). Only a batch with fewer pictures than
    threads shares its operators.
    """

    backend = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads or cpu_count()
        self._alone = _session(path, 1)
        self._takes = [node.name for node in self._alone.get_inputs()]
        self._shared = self._alone if self._threads == 1 else _session(path, self._threads)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="onnx")

    def run(self, images: U8, common: Mapping[str, Array] = NOTHING) -> Mapping[str, Array]:
        """See `Network.run`."""
        try:
            given = {name: images if name == INPUT_NAME else common[name] for name in self._takes}
            if len(images) < self._threads:
                names = [node.name for node in self._shared.get_outputs()]
                return dict(zip(names, self._shared.run(None, given), strict=True))
            return self._each_alone(given, len(images))
        except Exception as error:  # ONNX Runtime raises many unrelated types; this is the edge
            raise BackendError(f"ONNX Runtime failed on a batch of shape {images.shape}: {error}") from error

    def close(self) -> None:
        """Release the sessions."""
        self._pool.shutdown()
        del self._alone, self._shared

    def _each_alone(self, given: Mapping[str, U8 | Array], n: int) -> dict[str, Array]:
        """One run a picture, each writing into its row of the batch's outputs."""
        wanted = {node.name: node.shape[1:] for node in self._alone.get_outputs()}
        outputs = {name: np.empty((n, *shape), np.float32) for name, shape in wanted.items()}

        def one(row: int) -> None:
            binding = self._alone.io_binding()
            for name, rows in given.items():
                binding.bind_cpu_input(name, rows[row : row + 1])
            for name, output in outputs.items():
                place = output[row : row + 1]
                binding.bind_output(name, "cpu", 0, np.float32, place.shape, place.ctypes.data)
            self._alone.run_with_iobinding(binding)

        list(self._pool.map(one, range(n)))
        return outputs


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
