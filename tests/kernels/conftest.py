"""Training features of a chosen conditioning, and their moments by NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class World:
    """Pictures (K, C, h, w) and others to score (N, C, h, w), with mean (h, w, C) and S (h, w, C, C) in float64."""

    train: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    def sigma(self, eps) -> np.ndarray:
        """S + diag(eps)."""
        return self.covariance + np.eye(self.mean.shape[-1]) * np.asarray(eps, np.float64)


@pytest.fixture
def world():
    """A function of (channels, grid, samples, batch, condition): variances from 1 to `condition`, rotated."""

    def make(channels, grid=(3, 5), samples=40, batch=3, condition=1e2, seed=0):
        rng = np.random.default_rng(seed)
        positions = grid[0] * grid[1]
        mixing = np.sqrt(np.logspace(0, np.log10(condition), channels))[:, None] * np.eye(channels)
        for axis in rng.standard_normal((3, positions, channels, 1)):  # three reflections are rotation enough
            axis /= np.linalg.norm(axis, axis=1, keepdims=True)
            mixing = mixing - 2 * (mixing @ axis) * axis.transpose(0, 2, 1)
        offset = rng.standard_normal((positions, channels))

        def draw(count):
            drawn = np.einsum("npc,pcd->ndp", rng.standard_normal((count, positions, channels)), mixing) + offset.T
            return drawn.reshape(count, channels, *grid).astype(np.float32)

        train, test = draw(samples), draw(batch)
        flat = train.astype(np.float64).reshape(samples, channels, positions)
        covariance = np.stack([np.cov(flat[:, :, p], rowvar=False) for p in range(positions)])
        mean = flat.mean(axis=0).T.reshape(*grid, channels)
        return World(train, test, mean, covariance.reshape(*grid, channels, channels))

    return make
