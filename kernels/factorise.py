"""From covariances or centred samples to the two exact factorisations, in float64, a few positions at a time.

Letters: p positions of a chunk, C channels, K samples, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.errors import SingularError
from kernels.storage import F64

_SMALL = 32  # a triangular matrix this small is inverted as a general one


@dataclass(frozen=True, slots=True)
class Eigenpairs:
    """Leading eigenpairs of S: values (p, R) descending, vectors (p, R, C) in rows; `rest` (p, C - R), the others."""

    values: F64
    vectors: F64
    rest: F64


def whiten(covariance: F64) -> F64:
    """W = L^-1 with Sigma = L L^T, lower triangular: d = |W y|. Input and output (p, C, C).

    Raises SingularError when a matrix is not positive definite.
    """
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise SingularError(
            "covariance: expected positive definite S + eps at every position, got a singular one; "
            "raise eps, or train on more pictures than channels"
        ) from None
    return _invert_lower(factor)


def _invert_lower(lower: F64) -> F64:
    """Inverse of lower-triangular matrices (p, n, n), by halves: [[A, 0], [B, D]]^-1 = [[A', 0], [-D'BA', D']]."""
    size = lower.shape[-1]
    if size <= _SMALL:
        return np.tril(np.linalg.inv(lower))
    half = size // 2
    inverse = np.zeros_like(lower)
    inverse[:, :half, :half] = top = _invert_lower(lower[:, :half, :half])
    inverse[:, half:, half:] = bottom = _invert_lower(lower[:, half:, half:])
    inverse[:, half:, :half] = -bottom @ (lower[:, half:, :half] @ top)
    return inverse


def eigenpairs_of_covariance(covariance: F64, rank: int) -> Eigenpairs:
    """Eigenpairs of S (p, C, C)."""
    values, vectors = np.linalg.eigh(covariance)  # ascending; vectors in columns
    values, vectors = values[:, ::-1], vectors[:, :, ::-1].transpose(0, 2, 1)
    return Eigenpairs(_positive(values[:, :rank]), vectors[:, :rank], _positive(values[:, rank:]))


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
