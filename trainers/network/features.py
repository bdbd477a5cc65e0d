"""What an exported network says of pictures, by ONNX Runtime: the features that serving will see, not torch's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.types import F32, U8
from trainers.dataset.good import Selection
from trainers.network.exported import Exported
from trainers.progress import Progress

BATCH = 8  # keeps activations in the cache


@dataclass(frozen=True, slots=True)
class Features:
    """Of K pictures: `values` (K, C, h, w), and `positions` (K, h, w, 2) where they lie in another frame than these."""

    values: F32
    positions: F32 | None

    def __len__(self) -> int:
        return len(self.values)

    def at(self, rows: slice | npt.NDArray[np.intp]) -> Features:
        """Those of some pictures; of a slice they are views."""
        return Features(self.values[rows], None if self.positions is None else self.positions[rows])

    def batches(self) -> Iterator[Features]:
        """A few pictures at a time, in order."""
        return (self.at(slice(start, start + BATCH)) for start in range(0, len(self), BATCH))

    def fill(self, other: Features) -> None:
        """Overwrite with other ones of the same shapes."""
        self.values[:] = other.values
        if self.positions is not None and other.positions is not None:
            self.positions[:] = other.positions


class Extractor:
    """An ONNX file run with `threads` threads (0: all cores)."""

    def __init__(self, path: Path, threads: int) -> None:
        self._network = Exported(path, threads)
        self.height, self.width = self._network.height, self._network.width
        self.channels, rows, columns = self._network.shapes[0]
        self.grid = (rows, columns)
        self.aligns = len(self._network.shapes) > 1
        self.threads = threads

    def __call__(self, images: U8) -> Features:
        """(n, H, W, 3) uint8 RGB at the network's size."""
        outputs = self._network(images)
        return Features(outputs[0], outputs[1] if self.aligns else None)

    def of(self, pictures: Selection, progress: Progress) -> Features:
        """Features of all pictures, kept on disc: several passes read them."""
        count = len(pictures)
        values = _on_disc((count, self.channels, *self.grid))
        kept = Features(values, _on_disc((count, *self.grid, 2)) if self.aligns else None)
        with progress.task("features", count) as task:
            for start, room in zip(range(0, count, BATCH), kept.batches(), strict=True):
                room.fill(self(pictures.take(range(start, start + len(room)))))
                task.advance(len(room))
        return kept


def _on_disc(shape: tuple[int, ...]) -> F32:
    """An array in a nameless temporary file, which goes when the array goes."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
