"""Mean and scatter of samples, combined without cancellation (Chan, Golub, LeVeque 1979).

Letters: p positions, K samples, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels import _cpu
from kernels.machine import BEST, thread_count
from kernels.storage import F32, F64


@dataclass(frozen=True, slots=True)
class Moments:
    """`count` samples' mean (p, C) and scatter, the sum of (x - mean)(x - mean)^T: its upper triangles, row after row,
    (p, C (C + 1) / 2)."""

    count: int
    mean: F64
    scatter: F64

    @classmethod
    def empty(cls, channels: int, positions: int) -> Moments:
        """Room for moments; the values are not set."""
        return cls(0, np.empty((positions, channels)), np.empty((positions, channels * (channels + 1) // 2)))

    @classmethod
    def of(cls, samples: F32, threads: int) -> Moments:
        """Moments of samples (K, C, p)."""
        count, channels, positions = samples.shape
        new = cls.empty(channels, positions)
        _cpu.moments(samples, new.mean, new.scatter, thread_count(threads), BEST)
        return cls(count, new.mean, new.scatter)

    def at(self, positions: slice) -> Moments:
        """A copy of the moments at some positions."""
        return Moments(self.count, self.mean[positions].copy(), self.scatter[positions].copy())

    def variance(self) -> F64:
        """Unbiased variances (p, C)."""
        channels = self.mean.shape[1]
        rows = np.arange(channels)
        return self.scatter[:, rows * channels - rows * (rows - 1) // 2] / (self.count - 1)

    def covariance(self) -> F64:
        """Unbiased covariances (p, C, C), of which only the upper triangle is set."""
        channels = self.mean.shape[1]
        full = np.zeros((len(self.mean), channels, channels))
        full[:, *np.triu_indices(channels)] = self.scatter / (self.count - 1)
        return full

    def add(self, other: Moments) -> Moments:
        """Moments of both sets of samples; overwrites this scatter."""
        count = self.count + other.count
        shift = other.mean - self.mean
        self._update(other, shift, self.count * other.count / count, 1)
        return Moments(count, self.mean + shift * (other.count / count), self.scatter)

    def remove(self, other: Moments) -> Moments:
        """Moments of this set without that one, of which at least one sample is left; overwrites this scatter."""
        count = self.count - other.count
        mean = (self.mean * self.count - other.mean * other.count) / count
        self._update(other, other.mean - mean, count * other.count / self.count, -1)
        return Moments(count, mean, self.scatter)

    def _update(self, other: Moments, shift: F64, weight: float, sign: int) -> None:
        """scatter += sign (other's + weight shift shift^T)."""
        rows, columns = np.triu_indices(shift.shape[1])
        change = shift[:, rows]
        change *= shift[:, columns]
        change *= weight
        change += other.scatter
        self.scatter[...] += sign * change
