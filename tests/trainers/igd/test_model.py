"""Shapes of the networks, and a model's judgement against its parts."""

import numpy as np
import pytest
import pytorch_msssim
import torch

from trainers.backbones import build
from trainers.igd.decoder import LATENT, Critic, Decoder, ReverseBlock
from trainers.igd.encoder import BackboneTrunk, ResidualTrunk, stem_stride
from trainers.igd.latent import Latent
from trainers.igd.model import Descriptor
from trainers.igd.msssim import LOCAL, MsSsim
from trainers.igd.settings import Objective
from trainers.learning.passes import seeded


@pytest.mark.parametrize("side", [32, 64, 192])
def test_pictures_come_back_in_their_size(side):
    model = Descriptor(ResidualTrunk(side, 0.1, 64), side, 0.1, Objective()).eval()
    x = torch.rand((2, 3, side, side))
    with torch.no_grad():
        z = model.encode(model.trunk(x))
        x_hat = model.decoder(z)
        assert z.shape == (2, LATENT)
        assert x_hat.shape == x.shape
        assert 0 < float(x_hat.min()) <= float(x_hat.max()) < 1
        assert Critic(side, 0.1)(x).shape == (2,)
        assert model(x).map.shape == (2, side, side)


def test_a_full_network_has_the_channels_of_resnet_18():
    trunk, decoder = ResidualTrunk(256, 1.0, 512), Decoder(256, 1.0)
    assert [block.conv1.out_channels for block in trunk.blocks[::2]] == [64, 128, 256, 128]  # 128 * 2 * 2 = 512
    assert decoder.shape == (512, 8, 8)
    assert [block.conv1.out_channels for block in decoder.blocks] == [256, 128, 64]


def test_a_reverse_block_draws_each_place_four_times_and_sends_back_the_sum():
    """Against an upsampling of PyTorch's in the same places, in float64, by values and gradients."""
    block = ReverseBlock(3, 2).double().eval()
    x = torch.rand((2, 3, 4, 5), dtype=torch.float64, requires_grad=True)
    above = torch.rand((2, 2, 8, 10), dtype=torch.float64)

    def nearest(small):
        return torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")

    drawn = torch.relu(block.bn1(block.conv1(nearest(x))))
    expected = torch.relu(block.bn2(block.conv2(drawn)) + nearest(block.shortcut(x)))
    (expected * above).sum().backward()
    wanted, x.grad = x.grad, None
    found = block(x)
    (found * above).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(x.grad, wanted)


def test_features_keep_four_places_of_the_backbone_s_last_level():
    backbone = build("resnet18", 64)
    trunk = BackboneTrunk(backbone, 64).eval()
    x = torch.rand((2, 3, 64, 64))
    with torch.no_grad():
        level = (255 * x - trunk.mean) / trunk.std
        for index in range(3):
            level = backbone.level(index, level)
        corners = [level[:, :, i : i + 2, j : j + 2].mean(dim=(2, 3)) for i in (0, 2) for j in (0, 2)]
        torch.testing.assert_close(trunk(x), torch.stack(corners, dim=2).flatten(1))
    assert trunk.features == 1024


def test_small_pictures_have_a_small_stem():
    assert [stem_stride(side) for side in (32, 64, 256)] == [2, 4, 4]


def test_a_judgement_is_equations_8_12_and_17():
    """From z and x^, in float64 and by pytorch-msssim."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((3, 3, 64, 64), generator=generator)
    with seeded(0):
        model = Descriptor(ResidualTrunk(64, 0.1, 64), 64, 0.1, Objective(rho=0.3)).eval()
    mu, sigma = torch.linspace(-0.1, 0.1, LATENT), torch.tensor(1.2)
    model.set_latent(Latent(mu, sigma))
    with torch.no_grad():
        z = model.encode(model.trunk(x))
        x_hat = model.decoder(z)
        judged = model(x)
        alike = pytorch_msssim.ms_ssim(
            x, x_hat, data_range=1, size_average=False, win_size=3, weights=list(LOCAL.weights)
        )
        similarity = MsSsim(LOCAL, 64)
        places = similarity.at_every_place(similarity(x, x_hat)).double().numpy()
    distance = ((z - mu).double().numpy() ** 2).sum(axis=1)
    absolute = (x - x_hat).abs().double().numpy()
    want = 0.3 * absolute.mean(axis=(1, 2, 3)) + 0.7 * (1 - alike.double().numpy())
    np.testing.assert_allclose(judged.gaussian, 1 - np.exp(-distance / 1.44), rtol=1e-4)
    np.testing.assert_allclose(judged.reconstruction, want, rtol=1e-4)
    np.testing.assert_allclose(judged.map, 0.3 * absolute.mean(axis=1) + 0.7 * (1 - places), rtol=1e-4)
    torch.testing.assert_close(model.reconstruction_term(x, x_hat), judged.reconstruction)
    assert 0.05 < float(judged.gaussian.min()) < float(judged.gaussian.max()) < 0.95


def test_the_first_row_of_table_5_is_judged_by_the_squared_error_alone():
    x = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with seeded(0):
        model = Descriptor(ResidualTrunk(32, 0.1, 64), 32, 0.1, Objective(structural=False, gaussian=False)).eval()
    with torch.no_grad():
        squared = (x - model.decoder(model.encode(model.trunk(x)))).double().numpy() ** 2
        judged = model(x)
    np.testing.assert_allclose(judged.map, squared.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(judged.reconstruction, squared.mean(axis=(1, 2, 3)), rtol=1e-4)
    assert not judged.gaussian.any()


def test_features_of_a_fixed_trunk_are_standardised():
    model = Descriptor(ResidualTrunk(32, 0.1, 64), 32, 0.1, Objective())
    features = 7 + 3 * torch.randn((100, 64), generator=torch.Generator().manual_seed(0))
    model.fix_trunk(features)
    values = features.double()
    want = (values - values.mean(dim=0)) / (values.var(dim=0) + model.standard.eps).sqrt()
    with torch.no_grad():
        torch.testing.assert_close(model.encode(features), model.project(want.float()))
