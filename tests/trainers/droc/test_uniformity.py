"""MMD against closed forms and against samples."""

import math

import numpy as np
import pytest
import torch

from trainers.droc.uniformity import GAMMA, mmd, uniform_kernel_mean


def on_sphere(n, d, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_mean_kernel_to_a_uniform_point_in_three_dimensions():
    """There x.u is uniform in [-1, 1] (Archimedes), so it is exp(-2 gamma) sinh(2 gamma) / (2 gamma)."""
    kappa = 2 * GAMMA
    assert uniform_kernel_mean(3) == pytest.approx(math.exp(-kappa) * math.sinh(kappa) / kappa, rel=1e-12)


@pytest.mark.parametrize("d", [2, 5, 128])
def test_the_mean_kernel_is_that_of_a_sample(d):
    u = on_sphere(20_000, d)
    kernel = np.exp(-GAMMA * ((u - np.eye(d)[0]) ** 2).sum(axis=1))
    assert uniform_kernel_mean(d) == pytest.approx(kernel.mean(), abs=5 * kernel.std() / math.sqrt(len(u)))


def test_points_in_one_place_are_as_far_from_uniform_as_can_be():
    assert mmd(torch.ones((10, 3))) == pytest.approx(1 - uniform_kernel_mean(3), rel=1e-6)


def test_two_opposite_points():
    x = torch.tensor([[2.0, 0, 0], [-1, 0, 0]])
    assert mmd(x) == pytest.approx(math.exp(-4 * GAMMA) - uniform_kernel_mean(3), rel=1e-6)


def test_a_uniform_sample_has_none_and_the_estimate_is_unbiased():
    found = [mmd(torch.from_numpy(on_sphere(50, 8, seed))) for seed in range(100)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 10


def test_it_is_the_estimate_of_gretton_against_a_large_uniform_sample():
    x, u = on_sphere(40, 4, 1) + 1.5 * np.eye(4)[0], on_sphere(4000, 4, 2)
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def kernel(a, b):
        return np.exp(-GAMMA * ((a[:, None] - b[None]) ** 2).sum(axis=2))

    within = kernel(x, x)[~np.eye(40, dtype=bool)].mean()
    uniform = kernel(u[:2000], u[2000:]).mean()
    want = within + uniform - 2 * kernel(x, u).mean()
    assert mmd(torch.from_numpy(x)) == pytest.approx(want, abs=0.01)
    assert want > 0.05
