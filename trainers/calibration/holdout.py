"""Good pictures that a model has not seen: how they are set aside, and the thresholds that their scores give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.contract import Calibration
from engine.errors import DataError
from engine.maps import MapHead
from engine.tiling import Layout
from engine.types import F32, F64
from trainers.calibration.thresholds import PixelScores, calibrate
from trainers.dataset import resized
from trainers.dataset.good import Selection, TrainingSet, blocks
from trainers.dataset.resized import Resized
from trainers.dataset.tiles import Tiles, Wholes, cut
from trainers.progress import Progress

BLOCKS = 20
MIN_LEARNT = BLOCKS  # pictures of a training by gradient: a fifth of fewer would not make a threshold
_HALF_MAX = float(np.finfo(np.float16).max)
_HELD_OUT_EVERY = 5  # of the blocks of neighbours, every fifth


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures to train on, and pictures never seen; `tiles` of the former where the network sees tiles."""

    training: Selection
    held_out: Selection
    tiles: Tiles | None = None

    @property
    def layout(self) -> Layout | None:
        """How pictures are cut into tiles, where they are."""
        return None if self.tiles is None else self.tiles.layout

    @property
    def learning(self) -> Resized:
        """What the network learns from, at its input's size: the training pictures, or tiles of them."""
        if self.tiles is not None:
            return self.tiles.pictures
        assert isinstance(self.training, Resized)
        return self.training


def read_split(
    data: TrainingSet,
    size: int | Layout,
    split: Callable[[Selection], Split],
    seed: int,
    progress: Progress,
) -> Split:
    """The pictures, split, at a network's `size`: squares of so many px, or with a layout whole ones and tiles of them.

    What is learnt from very many tiles is drawn by `seed`.
    """
    if isinstance(size, int):
        return split(resized.read(data.pictures, size, progress))
    parts = split(Wholes(data.pictures, np.arange(len(data.pictures)), size.height, size.width))
    assert isinstance(parts.training, Wholes)
    return replace(parts, tiles=cut(parts.training, size, seed, progress))


def hold_out(pictures: Selection) -> Split:
    """Set a fifth of the pictures aside: whole blocks of neighbours, spread over the set.

    Raises DataError where there are too few for that.
    """
    n = len(pictures)
    if n < MIN_LEARNT:
        raise DataError(
            f"expected at least {MIN_LEARNT} good pictures, because this method learns from four fifths of them and "
            f"sets its thresholds by the others, got {n}; add pictures, or use --method fyd"
        )
    held = held_out_rows(n)
    return Split(pictures.subset(np.setdiff1d(np.arange(n), held)), pictures.subset(held))


def held_out_rows(n: int) -> npt.NDArray[np.intp]:
    """Which of n pictures in name order are set aside."""
    return np.concatenate(blocks(n, BLOCKS)[_HELD_OUT_EVERY // 2 :: _HELD_OUT_EVERY])


class HeldOut:
    """Scores of pictures by models that have not seen them."""

    def __init__(self, head: MapHead) -> None:
        self._head = head
        self._grids: list[npt.NDArray[np.float16]] = []
        self._scores: list[F64] = []
        self._pixels = PixelScores()

    def add(self, grids: F32, scores: F32 | None = None) -> None:
        """Take in distances (n, h, w) in the pictures' frame, and the network's own scores (n,) where it gives any."""
        peaks, maps = self._head(grids)
        self._grids.append(np.minimum(grids, _HALF_MAX).astype(np.float16))
        self._scores.append(peaks if scores is None else scores.astype(np.float64))
        self._pixels.add(maps)

    @property
    def scores(self) -> F64:
        """(n,) raw scores in the order they came."""
        return np.concatenate(self._scores)

    @property
    def grids(self) -> npt.NDArray[np.float16]:
        """(n, h, w) distances likewise, rounded to half precision."""
        return np.concatenate(self._grids)

    def calibration(self, folds: int, target_fpr: float) -> Calibration:
        """Thresholds from everything taken in."""
        return calibrate(self.scores, self._pixels, folds=folds, target_fpr=target_fpr)
