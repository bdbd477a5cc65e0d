"""Pictures larger than a network: whole, read when they are asked for, and the tiles of them that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.images import resize
from engine.tiling import Layout
from engine.types import U8
from trainers.dataset.good import ImageSource
from trainers.dataset.resized import Resized, on_disc
from trainers.progress import Progress

MOST_TILES = 2000  # that a network learns from, or a Gaussian is fitted to: they, and their features, lie on disc


@dataclass(frozen=True, slots=True)
class Wholes:
    """Some `rows` of a source, each resized to (height, width) px when it is asked for: too large to be kept."""

    source: ImageSource
    rows: npt.NDArray[np.intp]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> U8:
        return resize(self.source[int(self.rows[index])], self.height, self.width)

    def take(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> U8:
        """The pictures with these numbers, (n, H, W, 3)."""
        return np.stack([self[int(index)] for index in indices])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Wholes:
        """The pictures with these numbers, in the order given."""
        return Wholes(self.source, self.rows[np.asarray(indices, np.intp)], self.height, self.width)


@dataclass(frozen=True, slots=True)
class Tiles:
    """K tiles as pictures, (K, side, side, 3); `owners` (K,) ascending says of which picture each is."""

    layout: Layout
    pictures: Resized
    owners: npt.NDArray[np.intp]


def cut(wholes: Wholes, layout: Layout, seed: int, progress: Progress) -> Tiles:
    """All tiles of the pictures, or a random selection where there are more than MOST_TILES."""
    total = len(wholes) * len(layout)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:MOST_TILES])
    owners, numbers = np.divmod(chosen, len(layout))
    side_px = layout.tiling.side_px
    pixels = on_disc((len(chosen), side_px, side_px, 3))
    with progress.task("read", len(wholes)) as task:
        for index in range(len(wholes)):
            if len(mine := np.flatnonzero(owners == index)):
                image = wholes[index]
                for row in mine:
                    pixels[row] = layout.tile(image, int(numbers[row]))
            task.advance()
    return Tiles(layout, Resized(pixels, np.arange(len(chosen))), owners)
