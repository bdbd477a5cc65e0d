"""Equations (8) to (12) and (17), each against float64 NumPy."""

import numpy as np
import pytest
import torch

from trainers.igd import losses
from trainers.igd.msssim import LOCAL, MsSsim


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand((4, 3, 32, 32), generator=generator)
    return x, (x + 0.1 * torch.randn((4, 3, 32, 32), generator=generator)).clamp(0, 1)


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_gaussian_loss_is_equation_8():
    z, mu, sigma = rand(5, 128), rand(128, seed=1), torch.tensor(3.0)
    distance = np.linalg.norm(z.double().numpy() - mu.double().numpy(), axis=1)
    np.testing.assert_allclose(losses.gaussian_loss(z, mu, sigma), 1 - np.exp(-(distance**2) / 9), rtol=1e-5)
    assert float(losses.gaussian_loss(mu[None], mu, sigma)) == 0


def test_structural_loss_is_equation_12_with_an_absolute_error(pictures):
    x, x_hat = pictures
    similarity = MsSsim(LOCAL, 32)
    levels = similarity(x, x_hat)
    absolute = np.abs(x.double().numpy() - x_hat.double().numpy()).mean(axis=(1, 2, 3))
    want = 0.15 * absolute + 0.85 * (1 - similarity.score(levels).double().numpy())
    np.testing.assert_allclose(losses.structural_loss(x, x_hat, levels, similarity, 0.15), want, rtol=1e-5)


def test_structural_map_is_equation_17(pictures):
    x, x_hat = pictures
    similarity = MsSsim(LOCAL, 32)
    levels = similarity(x, x_hat)
    absolute = np.abs(x.double().numpy() - x_hat.double().numpy()).mean(axis=1)
    want = 0.15 * absolute + 0.85 * (1 - similarity.at_every_place(levels).double().numpy())
    np.testing.assert_allclose(losses.structural_map(x, x_hat, levels, similarity, 0.15), want, rtol=1e-5)


def test_too_bright_and_too_dark_count_alike():
    grey = torch.full((1, 3, 32, 32), 0.5)
    similarity = MsSsim(LOCAL, 32)
    maps = [losses.structural_map(grey, g, similarity(grey, g), similarity, 1.0) for g in (grey + 0.2, grey - 0.2)]
    for places in maps:
        torch.testing.assert_close(places, torch.full((1, 32, 32), 0.2))


def test_squared_map_is_the_mean_square_over_channels(pictures):
    x, x_hat = (v.double().numpy() for v in pictures)
    np.testing.assert_allclose(losses.squared_map(*pictures), ((x - x_hat) ** 2).mean(axis=1), atol=1e-6)


def test_representations_are_mixed_with_another_picture_s():
    z, alpha = rand(4, 128), torch.tensor([0.0, 0.1, 0.3, 0.5])
    mixed = losses.interpolated(z, alpha)
    for i in range(4):
        a = float(alpha[i])
        np.testing.assert_allclose(mixed[i], a * z[i].numpy() + (1 - a) * z[i - 1].numpy(), rtol=1e-6)


def test_pictures_are_blended_with_their_reconstructions(pictures):
    x, x_hat = pictures
    blended = losses.blended(x, x_hat, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    torch.testing.assert_close(blended[0], x_hat[0])
    torch.testing.assert_close(blended[1], 0.25 * x[1] + 0.75 * x_hat[1])
    torch.testing.assert_close(blended[3], x[3])


def test_critic_loss_is_equation_10():
    said, alpha, of_blended = (rand(6, seed=s).double().numpy() for s in (1, 2, 3))
    want = (said - alpha) ** 2 + of_blended**2
    got = losses.critic_loss(*(torch.from_numpy(v) for v in (said, alpha, of_blended)))
    np.testing.assert_allclose(got, want)
    np.testing.assert_allclose(losses.fooling_loss(torch.from_numpy(said)), said**2)
