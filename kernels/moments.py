"""Mean and scatter of samples, combined without cancellation (Chan, Golub, LeVeque 1979).

Letters: p positions, n or K samples, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels.storage import F64


@dataclass(frozen=True, slots=True)
class Moments:
    """`count` samples' mean (p, C) and scatter (p, C, C), the sum of (x - mean)(x - mean)^T."""

    count: int
    mean: F64
    scatter: F64

    @classmethod
    def of(cls, samples: F64) -> Moments:
        """Moments of samples (p, K, C), which are centred in place."""
        mean = samples.mean(axis=1)
        samples -= mean[:, None, :]
        return cls(samples.shape[1], mean, samples.transpose(0, 2, 1) @ samples)

    def add(self, other: Moments) -> Moments:
        """Moments of both sets of samples; overwrites this scatter."""
        count = self.count + other.count
        shift = other.mean - self.mean
        self._shift(other, shift, self.count * other.count / count, 1)
        return Moments(count, self.mean + shift * (other.count / count), self.scatter)

    def remove(self, other: Moments) -> Moments:
        """Moments of this set without that one, of which at least one sample is left; overwrites this scatter."""
        count = self.count - other.count
        mean = (self.mean * self.count - other.mean * other.count) / count
        self._shift(other, other.mean - mean, count * other.count / self.count, -1)
        return Moments(count, mean, self.scatter)

    def _shift(self, other: Moments, shift: F64, weight: float, sign: int) -> None:
        scatter = self.scatter
        scatter += sign * other.scatter
        scatter += (sign * weight) * (shift[:, :, None] * shift[:, None, :])
