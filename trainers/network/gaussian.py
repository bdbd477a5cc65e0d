"""A Gaussian per position on an extractor's features: fitted in one pass, calibrated on pictures left out.

Pictures are streamed, so memory is bounded by grid and channels whatever their number. Letters: n pictures of a batch,
K training pictures, C channels, h w grid, P = h * w positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import psutil
from threadpoolctl import threadpool_limits

import kernels
from engine.alignment import to_picture
from engine.bundle import Bundle
from engine.contract import Calibration
from engine.errors import BundleError, UsageError
from engine.maps import MapHead
from engine.tiling import Layout
from engine.types import F32, F64, U8
from kernels import Accumulator, Gaussian, mahalanobis_map, model_bytes
from trainers.calibration.holdout import BLOCKS, HeldOut, Split, hold_out
from trainers.dataset.good import Selection, blocks
from trainers.network.features import BATCH, Extractor, Features
from trainers.progress import Progress

HELD_OUT_FROM = 1000  # from so many pictures on, some are never trained on and the threshold has a guarantee
_WORK_BYTES = 12  # per C * C * P: 8 of kernels.Accumulator, 4 of the Gaussian of a fold
_VARIANCE_FLOOR = 1e-3  # of the mean over channels: a channel that never moved in training must not decide alone
_EPS_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit and to calibrate; see `fyd.settings.Settings` for the first two."""

    regularisation: float
    smoothing_sigma_px: float
    target_fpr: float

    @classmethod
    def of(cls, bundle: Bundle, target_fpr: float) -> Recipe:
        """How a bundle was fitted; raises BundleError where it does not say."""
        regularisation = bundle.manifest.settings.get("regularisation")
        if not isinstance(regularisation, float):
            raise BundleError(f"{bundle.path}: its settings lack `regularisation`; train it again with this version")
        return cls(regularisation, bundle.manifest.smoothing_sigma_px, target_fpr)


@dataclass(frozen=True, slots=True)
class Detector:
    """A network, its Gaussian and its map head: what a bundle serves. With a `layout` the network sees tiles."""

    extractor: Extractor
    gaussian: Gaussian
    head: MapHead
    layout: Layout | None = None

    def score(self, images: U8) -> tuple[F64, F32]:
        """(n, H, W, 3) uint8 RGB at input size -> raw scores (n,) and maps (n, H, W)."""
        return self.head(self.look(images))

    def look(self, images: U8) -> F32:
        """(n, H, W, 3) uint8 RGB at input size -> distances (n, h, w) in the pictures' frame."""
        if self.layout is None:
            return self.grids(self.extractor(images))
        return self.layout.look(images, lambda tiles: (self.grids(self.extractor(tiles)),))[0]

    def judge(self, features: Features) -> tuple[F64, F32]:
        """Features of n whole pictures -> raw scores (n,) and maps (n, H, W)."""
        return self.head(self.grids(features))

    def grids(self, features: Features) -> F32:
        """Features of n pictures, or tiles, -> distances (n, h, w) in the frame of these."""
        return in_picture(self.distances(features), features)

    def distances(self, features: Features) -> F32:
        """Equation 7: features of n pictures -> distances (n, h, w) in the features' own frame."""
        return mahalanobis_map(features.values, self.gaussian, threads=self.extractor.threads)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A detector, the thresholds of its scores and what they rest on, and equation 10 on its training pictures."""

    detector: Detector
    calibration: Calibration
    held_out: HeldOut
    distance_variance: float


@dataclass(frozen=True, slots=True)
class Folds:
    """Calibration by folds: each block of neighbours among the training pictures is judged by that of all others.

    `detector` has that of all pictures, `total` is the sum that it was fitted from, `features` what is in this, and
    `eps` what is added to the diagonal.
    """

    detector: Detector
    total: Accumulator
    eps: F64
    features: Features
    pictures: Split

    @property
    def parts(self) -> list[npt.NDArray[np.intp]]:
        """The pictures of each block."""
        n = len(self.pictures.training)
        return blocks(n, min(BLOCKS, n))

    def without(self, rows: npt.NDArray[np.intp]) -> Detector:
        """The detector of all pictures but some."""
        tiles = self.pictures.tiles
        left_out = rows if tiles is None else np.flatnonzero(np.isin(tiles.owners, rows))
        with threadpool_limits(1):
            return replace(self.detector, gaussian=self._without(left_out))

    def look(self, rows: npt.NDArray[np.intp]) -> Iterator[F32]:
        """Distances (n, h, w) of some pictures by the Gaussian of the others, a few pictures at a time."""
        fold = self.without(rows)
        if self.pictures.tiles is None:
            return (fold.grids(batch) for batch in self.features.at(rows).batches())
        return (fold.look(self.pictures.training.take([row])) for row in rows)

    def _without(self, rows: npt.NDArray[np.intp]) -> Gaussian:
        """The Gaussian of all features but some: these are taken out of the sum and put back.

        With fewer than channels it is cheaper to start again from the others.
        """
        if len(self.features) <= self.total.channels:
            return kernels.fit(np.delete(self.features.values, rows, axis=0), self.eps)
        part = Accumulator(self.total.channels, *self.total.grid)
        part.add(self.features.values[rows])
        self.total.subtract(part)
        gaussian = self.total.fit(self.eps)
        self.total.merge(part)
        return gaussian


def split(pictures: Selection) -> Split:
    """Hold pictures out where there are enough of them; where there are not, calibration is by folds."""
    if len(pictures) < HELD_OUT_FROM:
        return Split(pictures, pictures.subset([]))
    return hold_out(pictures)


def check_memory(channels: int, grid: tuple[int, int], samples: int) -> str:
    """One line on the size of the Gaussian to come; raises UsageError when fitting it cannot fit in memory."""
    positions = grid[0] * grid[1]
    model = model_bytes(channels, positions, samples)
    need = model + _WORK_BYTES * channels * channels * positions
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
    with threadpool_limits(1):  # small matrices: more threads are slower, and the bits would depend on their number
        folds = folds_of(extractor, pictures, recipe, progress)
        detector = folds.detector
        if len(pictures.held_out):
            held_out, count = _look(detector, pictures.held_out, progress), 1
        else:
            held_out, count = _leave_out(folds, progress), len(folds.parts)
    calibration = held_out.calibration(count, recipe.target_fpr)
    return Fitted(detector, calibration, held_out, distance_variance(detector, folds.features))


def folds_of(extractor: Extractor, pictures: Split, recipe: Recipe, progress: Progress) -> Folds:
    """The detector of all pictures, and what those of all but some are fitted from."""
    features = extractor.of(pictures.learning, progress)
    with threadpool_limits(1):
        total = _accumulate(extractor, features)
        eps = diagonal(total, recipe.regularisation)
        head = _head(extractor, pictures, recipe.smoothing_sigma_px)
        return Folds(Detector(extractor, total.fit(eps), head, pictures.layout), total, eps, features, pictures)


def distance_variance(detector: Detector, features: Features) -> float:
    """Equation 10: the variance over pictures of each position's distance, averaged over positions."""
    count, mean, scatter = 0, np.zeros(detector.extractor.grid), np.zeros(detector.extractor.grid)
    for batch in features.batches():
        for distances in detector.distances(batch).astype(np.float64):
            count += 1
            shift = distances - mean
            mean += shift / count
            scatter += shift * (distances - mean)
    return float((scatter / count).mean())


def _look(detector: Detector, pictures: Selection, progress: Progress) -> HeldOut:
    """Score pictures that were never trained on."""
    held_out = HeldOut(detector.head)
    size = BATCH if detector.layout is None else 1
    with progress.task("calibrate", len(pictures)) as task:
        for start in range(0, len(pictures), size):
            rows = range(start, min(start + size, len(pictures)))
            held_out.add(detector.look(pictures.take(rows)))
            task.advance(len(rows))
    return held_out


def _leave_out(folds: Folds, progress: Progress) -> HeldOut:
    """Score each block of neighbours by the Gaussian of all other pictures."""
    held_out = HeldOut(folds.detector.head)
    with progress.task("calibrate", len(folds.pictures.training)) as task:
        for rows in folds.parts:
            for grids in folds.look(rows):
                held_out.add(grids)
            task.advance(len(rows))
    return held_out


def _head(extractor: Extractor, pictures: Split, sigma_px: float) -> MapHead:
    if pictures.layout is None:
        return MapHead(extractor.grid, extractor.height, extractor.width, sigma_px)
    return pictures.layout.head(sigma_px)


def in_picture(grids: F32, features: Features) -> F32:
    """Distances (n, h, w) in the frame of the features -> in that of the picture."""
    return grids if features.positions is None else to_picture(grids, features.positions)


def _accumulate(extractor: Extractor, features: Features) -> Accumulator:
    total = Accumulator(extractor.channels, *extractor.grid)
    for batch in features.batches():
        total.add(batch.values)
    return total


def diagonal(total: Accumulator, regularisation: float) -> F64:
    """What to add to the diagonal of each channel (C,): a share of its variance, averaged over positions."""
    variance = total.variance().mean(axis=(1, 2))  # (C,)
    eps: F64 = regularisation * np.maximum(variance, _VARIANCE_FLOOR * variance.mean()) + _EPS_FLOOR
    return eps


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
