"""A Gaussian per position on an extractor's features: fitted in one pass, calibrated on pictures left out.

Pictures are streamed, so memory is bounded by grid and channels whatever their number. Letters: n pictures of a batch,
K training pictures, C channels, h w grid, P = h * w positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil

from engine.alignment import to_picture
from engine.contract import Calibration
from engine.errors import UsageError
from engine.maps import MapHead
from engine.types import F32, F64, U8
from kernels import Accumulator, Gaussian, mahalanobis_map, model_bytes
from trainers.calibrate import PixelScores, calibrate
from trainers.data import ImageSource, blocks
from trainers.features import Extractor, Features
from trainers.progress import Progress
from trainers.resized import Resized

MAX_FOLDS = 20
HELD_OUT_FROM = 1000  # from so many pictures on, some are never trained on and the threshold has a guarantee
_HELD_OUT_EVERY = 5  # of twenty blocks of neighbours, every fifth
_ACCUMULATOR_BYTES = 12  # per C * C * P, see kernels.Accumulator
_VARIANCE_FLOOR = 1e-3  # of the mean over channels: a channel that never moved in training must not decide alone
_EPS_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit and to calibrate; see `fyd.settings.Settings` for the first two."""

    regularisation: float
    smoothing_sigma_px: float
    target_fpr: float


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures to fit on, and pictures never seen; where there are none of these, calibration is by folds."""

    training: Resized
    held_out: Resized


@dataclass(frozen=True, slots=True)
class Detector:
    """A network, its Gaussian and its map head: what a bundle serves."""

    extractor: Extractor
    gaussian: Gaussian
    head: MapHead

    def score(self, images: U8) -> tuple[F64, F32]:
        """(n, H, W, 3) uint8 RGB at the network's size -> raw scores (n,) and maps (n, H, W)."""
        return self.judge(self.extractor(images))

    def judge(self, features: Features) -> tuple[F64, F32]:
        """Features of n pictures -> raw scores (n,) and maps (n, H, W)."""
        grids = self.distances(features)
        return self.head(grids if features.positions is None else to_picture(grids, features.positions))

    def distances(self, features: Features) -> F32:
        """Equation 7: features of n pictures -> distances (n, h, w) in the features' own frame."""
        return mahalanobis_map(features.values, self.gaussian, threads=self.extractor.threads)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A detector and the thresholds of its scores."""

    detector: Detector
    calibration: Calibration


def split(pictures: Resized) -> Split:
    """Hold pictures out where there are enough of them: whole blocks of neighbours, spread over the set."""
    n = len(pictures)
    if n < HELD_OUT_FROM:
        return Split(pictures, pictures.subset([]))
    parts = blocks(n, MAX_FOLDS)
    held = np.concatenate(parts[_HELD_OUT_EVERY // 2 :: _HELD_OUT_EVERY])
    return Split(pictures.subset(np.setdiff1d(np.arange(n), held)), pictures.subset(held))


def check_memory(channels: int, grid: tuple[int, int], samples: int) -> str:
    """One line on the size of the Gaussian to come; raises UsageError when fitting it cannot fit in memory."""
    positions = grid[0] * grid[1]
    model = model_bytes(channels, positions, samples)
    need = model + _ACCUMULATOR_BYTES * channels * channels * positions
    free = psutil.virtual_memory().available
    size = f"{channels} channels at {grid[0]} x {grid[1]} positions make a Gaussian of {_gb(model)}"
    if need > free:
        fitting = int(channels * (free / need) ** 0.5)
        raise UsageError(
            f"{size}; fitting it takes {_gb(need)} of memory, {_gb(free)} are free: add --channels {fitting} or fewer"
        )
    return f"{size} (fitting takes {_gb(need)})"


def fit(extractor: Extractor, pictures: Split, recipe: Recipe, progress: Progress) -> Fitted:
    """Fit equation 6 on the training pictures and set thresholds by pictures that a model has not seen."""
    n = len(pictures.training)
    parts = blocks(n, min(MAX_FOLDS, n))
    accumulated = _accumulate(extractor, pictures.training, parts, progress)
    eps = _eps(accumulated.total, recipe.regularisation)
    head = MapHead(extractor.grid, extractor.height, extractor.width, recipe.smoothing_sigma_px)
    detector = Detector(extractor, accumulated.total.fit(eps), head)
    held_out = HeldOut()
    if len(pictures.held_out):
        held_out.look(detector, pictures.held_out, progress)
        folds = 1
    else:
        _leave_out(detector, pictures.training, accumulated, eps, held_out, progress)
        folds = len(parts)
    return Fitted(detector, held_out.calibration(folds, recipe.target_fpr))


def distance_variance(detector: Detector, pictures: ImageSource, progress: Progress) -> float:
    """Equation 10: the variance over pictures of each position's distance, averaged over positions."""
    count, mean, scatter = 0, np.zeros(detector.extractor.grid), np.zeros(detector.extractor.grid)
    with progress.task("distance variance", len(pictures)) as task:
        for features in detector.extractor.over(pictures):
            for distances in detector.distances(features).astype(np.float64):
                count += 1
                shift = distances - mean
                mean += shift / count
                scatter += shift * (distances - mean)
            task.advance(len(features.values))
    return float((scatter / count).mean())


@dataclass(slots=True)
class HeldOut:
    """Scores of pictures by models that have not seen them."""

    scores: list[F64]
    pixels: PixelScores

    def __init__(self) -> None:
        self.scores, self.pixels = [], PixelScores()

    def add(self, detector: Detector, features: Features) -> None:
        """Score the features of n pictures."""
        scores, maps = detector.judge(features)
        self.scores.append(scores)
        self.pixels.add(maps)

    def look(self, detector: Detector, pictures: ImageSource, progress: Progress) -> None:
        """Score pictures."""
        with progress.task("calibrate", len(pictures)) as task:
            for features in detector.extractor.over(pictures):
                self.add(detector, features)
                task.advance(len(features.values))

    def calibration(self, folds: int, target_fpr: float) -> Calibration:
        """Thresholds from everything scored."""
        return calibrate(np.concatenate(self.scores), self.pixels, folds=folds, target_fpr=target_fpr)


@dataclass(frozen=True, slots=True)
class Accumulated:
    """All pictures, cut into `blocks`; `parts` holds each block's accumulator where all of them together are small."""

    total: Accumulator
    blocks: Sequence[np.ndarray]
    parts: Sequence[Accumulator] | None

    def without(self, index: int, part: Accumulator, eps: F64) -> Gaussian:
        """The Gaussian of all pictures but those of block `index`, of which `part` is the accumulator.

        The block is taken out of the sum and put back, unless pictures are fewer than channels: then adding up the
        other blocks is cheaper, because the pictures themselves are kept.
        """
        if self.parts is None:
            self.total.subtract(part)
            gaussian = self.total.fit(eps)
            self.total.merge(part)
            return gaussian
        rest = _like(self.total)
        for other in (*self.parts[:index], *self.parts[index + 1 :]):
            rest.merge(other)
        return rest.fit(eps)


def _accumulate(
    extractor: Extractor, pictures: Resized, parts: Sequence[np.ndarray], progress: Progress
) -> Accumulated:
    """One pass over the pictures."""
    total = Accumulator(extractor.channels, *extractor.grid)
    few = len(pictures) <= extractor.channels
    kept: list[Accumulator] = []
    with progress.task("fit", len(pictures)) as task:
        for block in parts:
            part = _like(total)
            for features in extractor.over(pictures.subset(block)):
                part.add(features.values)
                task.advance(len(features.values))
            total.merge(part)
            if few:
                kept.append(part)
    return Accumulated(total, parts, kept if few else None)


def _leave_out(
    detector: Detector, pictures: Resized, accumulated: Accumulated, eps: F64, held_out: HeldOut, progress: Progress
) -> None:
    """Score each block by the Gaussian of the others."""
    with progress.task("calibrate", len(pictures)) as task:
        for index, block in enumerate(accumulated.blocks):
            seen = list(detector.extractor.over(pictures.subset(block)))
            part = _like(accumulated.total)
            for features in seen:
                part.add(features.values)
            fold = replace(detector, gaussian=accumulated.without(index, part, eps))
            for features in seen:
                held_out.add(fold, features)
            task.advance(len(block))


def _like(accumulator: Accumulator) -> Accumulator:
    return Accumulator(accumulator.channels, *accumulator.grid)


def _eps(total: Accumulator, regularisation: float) -> F64:
    """What to add to the diagonal of each channel (C,): a share of its variance, averaged over positions."""
    variance = total.variance().mean(axis=(1, 2))  # (C,)
    eps: F64 = regularisation * np.maximum(variance, _VARIANCE_FLOOR * variance.mean()) + _EPS_FLOOR
    return eps


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
