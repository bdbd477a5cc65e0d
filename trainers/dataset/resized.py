"""Pictures at the network's size, decoded once: training passes over them many times."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.types import U8
from trainers.dataset.good import ImageSource, batches
from trainers.progress import Progress

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Resized:
    """An ImageSource of some `rows` of a (K, H, W, 3) uint8 array that lies in a nameless temporary file."""

    pixels: U8
    rows: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> U8:
        picture: U8 = self.pixels[self.rows[index]]
        return picture

    def take(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> U8:
        """The pictures with these numbers, (n, H, W, 3), as a copy."""
        return np.asarray(self.pixels[self.rows[np.asarray(indices, np.intp)]])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Resized:
        """The pictures with these numbers, in the order given."""
        return Resized(self.pixels, self.rows[np.asarray(indices, np.intp)])


def read(source: ImageSource, side_px: int, progress: Progress) -> Resized:
    """Decode all pictures and resize them to squares of `side_px`; raises DataError for one that cannot be read."""
    pixels = on_disc((len(source), side_px, side_px, 3))
    done = 0
    with progress.task("read", len(source)) as task:
        for images in batches(source, _BATCH, side_px, side_px):
            pixels[done : done + len(images)] = images
            done += len(images)
            task.advance(len(images))
    return Resized(pixels, np.arange(len(source)))


def on_disc(shape: tuple[int, ...]) -> U8:
    """An array in a nameless temporary file, which goes when the array goes."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
