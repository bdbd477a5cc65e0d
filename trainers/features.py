"""What an exported network says of pictures, by ONNX Runtime: the features that serving will see, not torch's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from engine.contract import INPUT_NAME
from engine.types import F32, U8
from trainers.data import ImageSource, batches

BATCH = 8  # keeps activations in the cache


@dataclass(frozen=True, slots=True)
class Features:
    """`values` (n, C, h, w); `positions` (n, h, w, 2) where the features lie in another frame than the picture."""

    values: F32
    positions: F32 | None


class Extractor:
    """An ONNX file run with `threads` threads (0: all cores)."""

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        shape = self._session.get_inputs()[0].shape
        self.height, self.width = int(shape[1]), int(shape[2])
        self.channels, *grid = (int(side) for side in self._session.get_outputs()[0].shape[1:])
        self.grid = (grid[0], grid[1])
        self.threads = threads

    def __call__(self, images: U8) -> Features:
        """(n, H, W, 3) uint8 RGB at the network's size."""
        outputs = self._session.run(None, {INPUT_NAME: images})
        return Features(outputs[0], outputs[1] if len(outputs) > 1 else None)

    def over(self, source: ImageSource) -> Iterator[Features]:
        """Features of all pictures in order, a batch at a time."""
        return (self(images) for images in batches(source, BATCH, self.height, self.width))
