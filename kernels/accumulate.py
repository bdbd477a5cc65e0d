"""Streaming mean and scatter of features per position, that can be merged and subtracted.

Letters: n pictures of a batch, K all pictures, C channels, h w grid, P = h * w positions, p positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.build import DEFAULT_EPS, Eps, Options, build
from kernels.errors import KernelError, ShapeError
from kernels.gaussian import Gaussian
from kernels.layout import Factorisation
from kernels.moments import Moments
from kernels.storage import F32, F64, Storage

_CHUNK_BYTES = 32 << 20


class Accumulator:
    """Pictures' features, folded into float64 means (P, C) and scatter matrices (P, C, C).

    Pictures are kept as they are until there are more of them than channels: that is smaller, and lets `fit` use the
    Gram matrix. Then they are folded in, and the next ones are kept. So it takes up to 8 * C * C * P bytes, half of
    them for the triangles of the scatter: 0.8 GB for 176 channels at 56 x 56 positions, 0.2 GB at 28 x 28. `threads`
    0 means every core this process may use.
    """

    def __init__(self, channels: int, h: int, w: int, threads: int = 0) -> None:
        if min(channels, h, w) < 1:
            raise ShapeError(f"Accumulator: expected positive sizes, got {channels=}, {h=}, {w=}")
        self.channels = channels
        self.grid = (h, w)
        self.positions = h * w
        self.threads = threads
        self._pending: list[F32] = []  # (n, C, P) each
        self._folded: Moments | None = None

    @property
    def count(self) -> int:
        """K: pictures so far."""
        return self._pending_count + (0 if self._folded is None else self._folded.count)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        folded = 0 if self._folded is None else self._folded.mean.nbytes + self._folded.scatter.nbytes
        return folded + sum(batch.nbytes for batch in self._pending)

    def add(self, features: npt.NDArray[Any]) -> None:
        """Take in a copy of features (n, C, h, w); raises ShapeError, or KernelError where one is not finite."""
        self._append(np.array(self._checked(features), np.float32, order="C"))

    def merge(self, other: Accumulator) -> None:
        """Take in all pictures of another accumulator, which stays as it is."""
        self._match(other)
        if other._folded is None:
            for batch in tuple(other._pending):
                self._append(batch)
        elif self.count:
            self._update(lambda at: self.moments(at).add(other.moments(at)))
        else:
            self._update(other.moments)

    def subtract(self, other: Accumulator) -> None:
        """Take out all pictures of another accumulator, which must be among those of this one.

        With fewer pictures than channels it is cheaper to merge the accumulators that stay.
        """
        self._match(other)
        if other.count > self.count:
            raise KernelError(f"subtract: expected at most {self.count} pictures, got {other.count}")
        if other.count == self.count:
            self._pending, self._folded = [], None
        elif other.count:
            self._update(lambda at: self.moments(at).remove(other.moments(at)))

    def variance(self) -> F64:
        """Unbiased variance of each channel at each position, (C, h, w): the measure for `eps`."""
        self.expect_samples()
        if self._folded is None:
            variances = [self.samples(at).var(axis=0, ddof=1, dtype=np.float64).T for at in self.chunks()]  # (p, C)
        else:
            variances = [self.moments(at).variance() for at in self.chunks()]
        return np.concatenate(variances).T.reshape(self.channels, *self.grid)

    def fit(
        self,
        eps: Eps = DEFAULT_EPS,
        *,
        rank: int | None = None,
        factorisation: Factorisation | None = None,
        storage: Storage = "float32",
        max_bytes: int | None = None,
    ) -> Gaussian:
        """The Gaussian of all pictures; arguments and errors as of the function `fit`."""
        return build(self, Options.checked(self.channels, eps, rank, factorisation, storage, max_bytes, self.threads))

    @property
    def keeps_samples(self) -> bool:
        """Whether every picture is still there as such."""
        return self._folded is None

    def expect_samples(self) -> None:
        """Raise KernelError unless a covariance can be estimated."""
        if self.count < 2:
            raise KernelError(f"fit: expected at least 2 training pictures, got {self.count}")

    def chunks(self) -> Iterator[slice]:
        """Runs of positions small enough to work on."""
        step = max(_CHUNK_BYTES // (8 * self.channels * max(self.channels, self._pending_count)) // 16 * 16, 16)
        return (slice(p, min(p + step, self.positions)) for p in range(0, self.positions, step))

    def samples(self, at: slice) -> F32:
        """The pictures kept, (n, C, p)."""
        return np.concatenate([batch[:, :, at] for batch in self._pending])

    def moments(self, at: slice) -> Moments:
        """Moments of all pictures at a run of positions; a copy."""
        if self._folded is None:
            return Moments.of(self.samples(at), self.threads)
        folded = self._folded.at(at)
        return folded.add(Moments.of(self.samples(at), self.threads)) if self._pending else folded

    @property
    def _pending_count(self) -> int:
        return sum(len(batch) for batch in self._pending)

    def _checked(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
        expected = (self.channels, *self.grid)
        if features.ndim != 4 or features.shape[1:] != expected:
            raise ShapeError(f"features: expected (K, C, h, w) with (C, h, w) = {expected}, got {features.shape}")
        return features

    def _match(self, other: Accumulator) -> None:
        mine, theirs = (self.channels, *self.grid), (other.channels, *other.grid)
        if mine != theirs:
            raise ShapeError(f"accumulator: expected (C, h, w) = {mine}, got {theirs}")

    def _append(self, batch: F32) -> None:
        self._keep(batch.reshape(len(batch), self.channels, self.positions))
        if self._pending_count > self.channels:
            self._update(self.moments)

    def _keep(self, batch: F32) -> None:
        if not np.isfinite(batch).all():
            raise KernelError("features: expected finite values, got NaN or infinity; look at the training pictures")
        if len(batch):
            self._pending.append(batch)

    def _update(self, moments: Callable[[slice], Moments]) -> None:
        """Put the moments that a function gives for each run of positions in the place of everything held."""
        old = self._folded or Moments.empty(self.channels, self.positions)
        for at in self.chunks():
            new = moments(at)
            old.mean[at], old.scatter[at] = new.mean, new.scatter
        self._folded, self._pending = Moments(new.count, old.mean, old.scatter), []


def fit(
    features: npt.NDArray[Any],
    eps: Eps = DEFAULT_EPS,
    *,
    rank: int | None = None,
    factorisation: Factorisation | None = None,
    storage: Storage = "float32",
    max_bytes: int | None = None,
    threads: int = 0,
) -> Gaussian:
    """The Gaussian of features (K, C, h, w) at every position: mean and Sigma = S + diag(eps), equation (6) of FYD.

    S is unbiased. `eps` is added to the diagonal as it is, in squared feature units: one number, or one per channel
    (C,); see `Accumulator.variance`. `factorisation` None takes the one that is cheaper to evaluate; both are exact.
    `rank` keeps that many leading eigenpairs, the mean of the others going into eps; `Gaussian.truncation` says what it
    costs. Raises TooManyBytesError before any work when the model would exceed `max_bytes`, SingularError when
    S + eps has no inverse, ShapeError and KernelError for unusable arguments.
    """
    if features.ndim != 4:
        raise ShapeError(f"features: expected (K, C, h, w), got {features.shape}")
    channels, h, w = features.shape[1:]
    pictures = Accumulator(channels, h, w, threads)
    options = Options.checked(channels, eps, rank, factorisation, storage, max_bytes, threads)
    values = np.asarray(features, np.float32)
    pictures._keep(values.reshape(len(values), channels, h * w))
    return build(pictures, options)
