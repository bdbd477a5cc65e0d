"""From accumulated pictures to a factorised Gaussian, a few positions at a time.

Letters: K pictures, C channels, P positions, p positions of a chunk, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
import numpy.typing as npt

from kernels.errors import KernelError, SingularError, TooManyBytesError
from kernels.factorise import Eigenpairs, eigenpairs_of_covariance, eigenpairs_of_samples, whiten
from kernels.gaussian import Gaussian, Truncation
from kernels.layout import Factorisation, choose, full_rank, model_bytes, packed_values, row_values
from kernels.moments import Moments
from kernels.storage import F32, F64, Storage, check, empty, encode

Eps = float | npt.ArrayLike

DEFAULT_EPS = 0.01  # FYD, PaDiM


class Source(Protocol):
    """Accumulated pictures."""

    @property
    def channels(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def positions(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def keeps_samples(self) -> bool: ...
    def expect_samples(self) -> None: ...
    def chunks(self) -> Iterator[slice]: ...
    def samples(self, at: slice) -> F32: ...
    def moments(self, at: slice) -> Moments: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What to make of the pictures; `eps` is () or (C,)."""

    eps: F64
    rank: int | None
    factorisation: Factorisation | None
    storage: Storage
    max_bytes: int | None
    threads: int

    @classmethod
    def checked(
        cls,
        channels: int,
        eps: Eps,
        rank: int | None,
        factorisation: Factorisation | None,
        storage: Storage,
        max_bytes: int | None,
        threads: int,
    ) -> Options:
        """Options that fit `channels`; raises KernelError naming the one that does not."""
        values = np.array(eps, np.float64)
        if values.shape not in ((), (channels,)) or not (np.isfinite(values) & (values >= 0)).all():
            raise KernelError(f"eps: expected a number >= 0, or {channels} of them, got {eps!r}")
        if rank is not None and not 1 <= rank <= channels:
            raise KernelError(f"rank: expected 1 to {channels} (the channels), got {rank}")
        if factorisation is not None and factorisation not in get_args(Factorisation):
            raise KernelError(
                f"factorisation: expected one of {get_args(Factorisation)} or None, got {factorisation!r}"
            )
        if rank is not None and factorisation == "triangular":
            raise KernelError("rank: a triangular factor has full rank; expected factorisation low_rank or None")
        return cls(values, rank, factorisation, check(storage), max_bytes, threads)


def build(source: Source, options: Options) -> Gaussian:
    """The Gaussian of all pictures of a source."""
    source.expect_samples()
    kind = options.factorisation or choose(source.channels, source.count, options.rank)
    if kind == "low_rank" and options.factorisation is None and options.rank is None and not options.eps.all():
        kind = "triangular"  # the low-rank form divides by eps
    _expect_size(source, options, kind)
    return _triangular(source, options) if kind == "triangular" else _low_rank(source, options)


def _expect_size(source: Source, options: Options, kind: Factorisation) -> None:
    (h, w), most = source.grid, options.max_bytes

    def size(channels: int) -> int:
        return model_bytes(
            channels, h * w, source.count, rank=options.rank, factorisation=kind, storage=options.storage
        )

    if most is None or size(source.channels) <= most:
        return
    fitting = max((c for c in range(1, source.channels) if size(c) <= most), default=0)
    advice = (
        f"use at most {fitting} channels, a coarser grid" if fitting else "not even 1 channel fits; use a coarser grid"
    )
    raise TooManyBytesError(
        f"model: {source.channels} channels at {h} x {w} positions take {size(source.channels) / 1e6:.3g} MB "
        f"({kind}, {options.storage}), expected at most {most / 1e6:.3g} MB; {advice}, a lower rank, or 16-bit storage"
    )


def _triangular(source: Source, options: Options) -> Gaussian:
    channels, positions = source.channels, source.positions
    mean = np.empty((positions, channels), np.float32)
    factor = empty((positions, packed_values(channels)), options.storage)
    for at in source.chunks():
        moments = source.moments(at)
        mean[at] = moments.mean
        factor[at] = encode(whiten(moments, options.eps, options.threads), options.storage)
    shape = (*source.grid, channels)
    return Gaussian(mean.reshape(shape), factor, options.storage, options.eps, source.count)


def _low_rank(source: Source, options: Options) -> Gaussian:
    if not options.eps.all():
        raise SingularError("eps: expected more than 0 in every channel for a low-rank factor, got 0; raise eps")
    channels, positions = source.channels, source.positions
    rank = full_rank(channels, source.count, options.rank)
    exact = rank == full_rank(channels, source.count, None)
    scale = np.broadcast_to(1.0 / np.sqrt(options.eps), (channels,))
    mean = np.empty((positions, channels), np.float32)
    factor = empty((positions, rank, row_values(channels)), options.storage)
    weights = np.empty((positions, rank), np.float32)
    tail = np.ones(positions, np.float32)
    costs = []
    for at in source.chunks():
        mean[at], pairs = _eigenpairs(source, at, scale, rank)
        factor[at, :, channels:] = 0
        factor[at, :, :channels] = encode(pairs.vectors.astype(np.float32), options.storage)
        weights[at] = 1.0 / (pairs.values + 1.0)
        if not exact:
            tail[at] = 1.0 / (pairs.rest.mean(axis=1) + 1.0)
            costs.append(_costs(pairs))
    return Gaussian(
        mean=mean.reshape(*source.grid, channels),
        factor=factor,
        storage=options.storage,
        eps=options.eps,
        samples=source.count,
        scale=scale.astype(np.float32),
        weights=weights,
        tail=tail,
        truncation=None if exact else _truncation(np.concatenate(costs)),
    )


def _eigenpairs(source: Source, at: slice, scale: F64, rank: int) -> tuple[F64, Eigenpairs]:
    """Means (p, C), and eigenpairs of the covariance of scaled channels, for which eps is 1."""
    if source.keeps_samples and source.count < source.channels:
        samples = source.samples(at).transpose(2, 0, 1).astype(np.float64)  # (p, K, C)
        mean = samples.mean(axis=1)
        samples -= mean[:, None, :]
        samples *= scale / np.sqrt(source.count - 1)
        return mean, eigenpairs_of_samples(samples, rank)
    moments = source.moments(at)
    return moments.mean, eigenpairs_of_covariance(moments.covariance() * np.outer(scale, scale), rank)


def _costs(pairs: Eigenpairs) -> F64:
    """Bound and mean square of the relative error of d^2, and share of variance kept, (p, 3).

    A discarded direction of variance l + 1 is weighted 1 / (t + 1), t the mean of those l: its share of d^2 is wrong by
    the factor (l + 1) / (t + 1), and d^2 of Gaussian pictures has mean C.
    """
    tail = pairs.rest.mean(axis=1, keepdims=True)
    wrong = (pairs.rest + 1.0) / (tail + 1.0) - 1.0
    channels = pairs.vectors.shape[2]
    kept = pairs.values.sum(axis=1)
    total = kept + pairs.rest.sum(axis=1)
    share = np.divide(kept, total, out=np.ones_like(total), where=total > 0)
    return np.stack([np.abs(wrong).max(axis=1), 2.0 * np.square(wrong).sum(axis=1) / channels**2, share], axis=1)


def _truncation(costs: F64) -> Truncation:
    bound, mean_square, share = costs.T
    return Truncation(float(bound.max()), float(np.sqrt(mean_square.max())), float(share.mean()))
