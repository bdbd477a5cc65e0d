"""How a Mahalanobis distance changes with the features: the gradient of `trainers.network.mahalanobis`.

With d = |W y|, y = x - mean and W = L^-1 (equation 7 of FYD), the slope of d is W' W y / d. Of the low-rank form
d^2 = sum_k w_k z_k^2 + tail |r|^2, y = scale * (x - mean), z = U' y, r = y - U z with U' U = 1, it is
scale * (U (w * z) + tail * r) / d.
Letters: N batch, C channels, h w grid, P = h * w positions, p positions of a chunk, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kernels.layout import triangle

_CHUNK_VALUES = 1 << 22  # of the matrices unpacked at a time


@dataclass(frozen=True, slots=True)
class Parts:
    """A Gaussian's arrays as tensors, see `kernels.Gaussian`."""

    mean: Tensor
    factor: Tensor
    scale: Tensor | None
    weights: Tensor | None
    tail: Tensor | None


def slope(features: Tensor, parts: Parts, distances: Tensor, gradient: Tensor) -> Tensor:
    """The gradient by features (N, C, h, w), given that by their distances (N, h, w).

    Where a feature is its mean the distance has no slope, and 0 is given. Only positions whose distance matters for any
    picture are worked on: a score that is the maximum of a map depends on a few.
    """
    n, channels = features.shape[:2]
    share = torch.where(distances > 0, gradient / distances, torch.zeros_like(distances)).reshape(n, -1)  # (N, P)
    y = features.float().reshape(n, channels, -1) - parts.mean.reshape(-1, channels).T  # (N, C, P)
    found = torch.zeros_like(y)
    for at in _chunks(share.any(dim=0).nonzero()[:, 0], channels):
        rows = y[:, :, at].permute(2, 0, 1)  # (p, N, C)
        pulled = _triangular(rows, parts, at) if parts.weights is None else _low_rank(rows, parts, at)
        found[:, :, at] = (pulled * share[:, at].T.unsqueeze(2)).permute(1, 2, 0)
    return found.reshape(features.shape).to(features.dtype)


def _chunks(positions: Tensor, channels: int) -> Iterator[Tensor]:
    step = max(_CHUNK_VALUES // channels**2, 1)
    return (positions[start : start + step] for start in range(0, len(positions), step))


def _triangular(y: Tensor, parts: Parts, at: Tensor) -> Tensor:
    """W' W y for y (p, N, C)."""
    channels = y.shape[2]
    rows, columns = _triangle(channels)
    w = y.new_zeros((len(at), channels, channels))
    w[:, rows[rows >= 0], columns[rows >= 0]] = parts.factor[at][:, rows >= 0].to(y.dtype)
    return y @ w.transpose(1, 2) @ w


def _low_rank(y: Tensor, parts: Parts, at: Tensor) -> Tensor:
    """scale * (U (w * z) + tail * r) for x - mean = y (p, N, C)."""
    if parts.scale is None or parts.weights is None or parts.tail is None:
        raise ValueError("a low-rank Gaussian has scale, weights and tail")
    u = parts.factor[at][:, :, : y.shape[2]].to(y.dtype)  # (p, R, C)
    scaled = y * parts.scale
    z = scaled @ u.transpose(1, 2)  # (p, N, R)
    rest = scaled - z @ u
    pulled = (z * parts.weights[at].unsqueeze(1)) @ u + rest * parts.tail[at, None, None]
    return pulled * parts.scale


@lru_cache(maxsize=4)
def _triangle(channels: int) -> tuple[Tensor, Tensor]:
    rows, columns = triangle(channels)
    return torch.from_numpy(rows), torch.from_numpy(columns)
