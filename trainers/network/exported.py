"""An exported network run by ONNX Runtime: what serving will see, not what torch saw."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from engine.contract import INPUT_NAME
from engine.types import F32, U8


class Exported:
    """An ONNX file of (n, height, width, 3) uint8 RGB pictures, run with `threads` threads (0: all cores).

    `shapes` are those of its outputs, without the batch.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        shape = self._session.get_inputs()[0].shape
        self.height, self.width = int(shape[1]), int(shape[2])
        self.shapes = [tuple(int(side) for side in output.shape[1:]) for output in self._session.get_outputs()]

    def __call__(self, images: U8) -> list[F32]:
        """The outputs of (n, H, W, 3) uint8 RGB at the network's size, in order."""
        outputs: list[F32] = self._session.run(None, {INPUT_NAME: images})
        return outputs
