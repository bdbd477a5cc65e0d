"""The E-step of equation (3) against NumPy in float64."""

import numpy as np
import torch

from trainers.igd.latent import SIGMA_FLOOR, e_step


def test_mean_and_deviation_are_those_of_all_representations():
    z = 5 + 3 * torch.randn((1000, 128), generator=torch.Generator().manual_seed(0))
    found = e_step(z)
    values = z.double().numpy()
    np.testing.assert_allclose(found.mu, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.sigma, np.sqrt(values.var(axis=0).sum()), rtol=1e-6)
    assert found.mu.dtype == found.sigma.dtype == torch.float32


def test_far_from_the_origin_nothing_is_lost():
    z = 1000 + 0.01 * torch.randn((500, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(e_step(z).sigma, np.sqrt(z.numpy().var(axis=0).sum()), rtol=1e-5)


def test_sigma_is_floored_where_representations_coincide():
    found = e_step(torch.ones((10, 4)))
    assert float(found.sigma) == np.float32(SIGMA_FLOOR)


def test_what_it_finds_has_no_history():
    found = e_step(torch.rand((5, 4), requires_grad=True))
    assert not found.mu.requires_grad
    assert not found.sigma.requires_grad
