"""From moments or centred samples to the two exact factorisations, in float64, a few positions at a time.

Letters: p positions of a chunk, C channels, K samples, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels import _cpu
from kernels.errors import SingularError
from kernels.layout import packed_values
from kernels.machine import BEST, thread_count
from kernels.moments import Moments
from kernels.storage import F32, F64


@dataclass(frozen=True, slots=True)
class Eigenpairs:
    """Leading eigenpairs of S: values (p, R) descending, vectors (p, R, C) in rows; `rest` (p, C - R), the others."""

    values: F64
    vectors: F64
    rest: F64


def whiten(moments: Moments, eps: F64, threads: int) -> F32:
    """W = L^-1, with S + diag(eps) = L L^T, so that d = |W y|: packed, (p, packed values).

    Raises SingularError when a matrix is not positive definite.
    """
    positions, channels = moments.mean.shape
    factor = np.empty((positions, packed_values(channels)), np.float32)
    eps = np.array(np.broadcast_to(eps, (channels,)))
    singular = _cpu.whiten(moments.scatter, 1 / (moments.count - 1), eps, factor, thread_count(threads), BEST)
    if singular:
        raise SingularError(
            f"covariance: expected S + eps to be positive definite at every position, got a singular one at {singular} "
            f"of {positions}; raise eps, or train on more pictures than channels"
        )
    return factor


def eigenpairs_of_covariance(covariance: F64, rank: int) -> Eigenpairs:
    """Eigenpairs of S (p, C, C), of which the upper triangle is read."""
    values, vectors = np.linalg.eigh(covariance, UPLO="U")  # ascending; vectors in columns
    values, vectors = _positive(values[:, ::-1]), vectors[:, :, ::-1].transpose(0, 2, 1)
    return Eigenpairs(values[:, :rank], vectors[:, :rank], values[:, rank:])


def eigenpairs_of_samples(samples: F64, rank: int) -> Eigenpairs:
    """Eigenpairs of S = X^T X from X (p, K, C), K < C, by the K x K Gram matrix: u = X^T v / sqrt(l)."""
    count, channels = samples.shape[1:]
    values, vectors = np.linalg.eigh(samples @ samples.transpose(0, 2, 1))
    values, vectors = _positive(values[:, ::-1]), vectors[:, :, ::-1].transpose(0, 2, 1)
    kept = values[:, :rank]
    # With eps scaled to 1, a pair of l <= 1e-6 changes d^2 by less than 1e-6 of itself; dividing by its root does harm.
    usable = kept > np.maximum(1e-6, 1e-12 * values[:, :1])
    inverse_root = np.where(usable, 1.0 / np.sqrt(np.where(usable, kept, 1.0)), 0.0)
    basis = (vectors[:, :rank] * inverse_root[:, :, None]) @ samples  # (p, R, C)
    rest = np.zeros((len(samples), channels - rank))
    rest[:, : count - rank] = values[:, rank:]
    return Eigenpairs(np.where(usable, kept, 0.0), basis, rest)


def _positive(values: F64) -> F64:
    return np.maximum(values, 0.0)
