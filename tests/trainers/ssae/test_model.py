"""The network of Table 1, and the maps made of it."""

import numpy as np
import pytest
import torch
from torch import nn

from engine.contract import GRID_NAME
from trainers.learning.passes import seeded
from trainers.network.export import export_onnx
from trainers.network.exported import Exported
from trainers.ssae.model import Autoencoder, ErrorMap, FusedMap, StackedDilated

TABLE_1 = [  # kind, filters, filter size, stride or dilations
    ("conv", 64, 3, 1),
    ("conv", 64, 3, 1),
    ("pool",),
    ("conv", 128, 3, 1),
    ("conv", 128, 3, 1),
    ("pool",),
    ("conv", 256, 3, 1),
    ("conv", 256, 3, 1),
    ("pool",),
    *[("sdc", 64, 5, (1, 2, 4, 8, 16, 32))] * 4,
    ("transposed", 256, 3, 2),
    ("conv", 256, 3, 1),
    ("conv", 256, 3, 1),
    ("transposed", 128, 3, 2),
    ("conv", 128, 3, 1),
    ("conv", 128, 3, 1),
    ("transposed", 64, 3, 2),
    ("conv", 64, 3, 1),
    ("conv", 64, 3, 1),
    ("conv", 3, 1, 1),
]


def rows(network):
    """The layers of a network as Table 1 lists them."""
    for layer in network.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            yield "transposed", layer.out_channels, layer.kernel_size[0], layer.stride[0]
        elif isinstance(layer, nn.Conv2d):
            yield "conv", layer.out_channels, layer.kernel_size[0], layer.stride[0]
        elif isinstance(layer, nn.MaxPool2d):
            yield ("pool",)
        elif hasattr(layer, "parallel"):
            dilations = tuple(conv.dilation[0] for conv in layer.parallel)
            yield "sdc", layer.parallel[0].out_channels, layer.parallel[0].kernel_size[0], dilations
            assert {conv.out_channels for conv in layer.parallel} == {64}
            assert (layer.joint[0].in_channels, layer.joint[0].out_channels) == (384, 384)
            assert layer.joint[0].kernel_size == (3, 3)


@pytest.mark.parametrize("size", [(16, 16), (40, 9), (1, 3)])
def test_stacked_dilated_convolutions_are_those_of_torch_with_all_their_taps(size):
    """Values and gradients, in float64: what is left out sees only padding."""
    stack = StackedDilated(3, 2).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    whole = [
        nn.functional.conv2d(x, conv.weight, conv.bias, padding=2 * d, dilation=d)
        for conv, d in zip(stack.parallel, (1, 2, 4, 8, 16, 32), strict=True)
    ]
    expected, found = stack.joint(torch.cat(whole, dim=1)), stack(x)
    weights = torch.randn_like(found)
    parameters = list(stack.parameters())
    for one, other in zip(
        [expected, *torch.autograd.grad((expected * weights).sum(), parameters)],
        [found, *torch.autograd.grad((found * weights).sum(), parameters)],
        strict=True,
    ):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)


def test_the_full_network_is_table_1():
    with torch.device("meta"):
        network = Autoencoder(1.0)
    assert list(rows(network)) == TABLE_1
    assert isinstance(network.layers[-1], nn.Sigmoid)
    assert isinstance(network.layers[-2], nn.Conv2d)  # no batch norm before the sigmoid


def test_a_narrow_network_has_a_share_of_every_layers_channels():
    with torch.device("meta"):
        convolutions = [
            [m.out_channels for m in Autoencoder(width).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
            for width in (1.0, 0.25)
        ]
    assert convolutions[1] == [c if c == 3 else c // 4 for c in convolutions[0]]


@pytest.fixture(scope="module")
def network():
    """Narrow enough for tests; batch norms that are not the identity."""
    with seeded(0):
        built = Autoencoder(1 / 16)
        built(torch.rand(4, 3, 64, 64))
    return built.eval()


@pytest.mark.parametrize("size", [(64, 64), (40, 96), (50, 33), (7, 9)])
def test_pictures_of_any_size_keep_it(network, size):
    with torch.no_grad():
        out = network(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, *size)
    assert out.min() > 0
    assert out.max() < 1


def test_padding_to_the_stride_only_adds_below_and_right(network):
    x = torch.rand(1, 3, 50, 33, generator=torch.Generator().manual_seed(1))
    padded = torch.tensor(np.pad(x.numpy(), ((0, 0), (0, 0), (0, 6), (0, 7)), mode="edge"))
    with torch.no_grad():
        assert torch.equal(network(x), network(padded)[..., :50, :33])


def test_a_stack_of_dilated_convolutions_sees_far_and_near(network):
    """One pixel of the bottleneck's input reaches positions at every dilation's distance."""
    stack = next(layer for layer in network.layers if isinstance(layer, StackedDilated))
    channels = stack.parallel[0].in_channels
    x = torch.zeros(1, channels, 161, 161)
    y = x.clone()
    y[..., 80, 80] = 1
    with torch.no_grad():
        reached = (torch.cat([conv(y) - conv(x) for conv in stack.parallel], dim=1)[0].abs().sum(0) > 1e-7).numpy()
    for dilation in (1, 2, 4, 8, 16, 32):
        assert reached[80 + 2 * dilation, 80]
        assert reached[80, 80 - 2 * dilation]
    assert not reached[:16].any()
    assert reached.sum() == 1 + 24 + 5 * 16  # each dilation doubles: 5x5 taps, of which nine are the one before's


def images(n, size=64):
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_the_error_map_is_the_channel_mean_of_squared_differences(network):
    pictures = images(2)
    with torch.no_grad():
        got = ErrorMap(network)(pictures).numpy()
        x = pictures.numpy().astype(np.float64).transpose(0, 3, 1, 2) / 255
        f = network(torch.tensor(x, dtype=torch.float32)).double().numpy()
    np.testing.assert_allclose(got, ((f - x) ** 2).mean(axis=1), rtol=1e-4, atol=1e-7)


def fused():
    with seeded(1):
        members = [ErrorMap(Autoencoder(1 / 16).eval()) for _ in range(2)]
    return members, FusedMap(members, [0.5, 0.02])


def test_a_fusion_is_the_mean_of_scaled_maps():
    members, both = fused()
    with torch.no_grad():
        a, b = (member(images(2)).double().numpy() for member in members)
        np.testing.assert_allclose(both(images(2)).numpy(), (a / 0.5 + b / 0.02) / 2, rtol=1e-5)


@pytest.mark.parametrize("kind", ["one", "both"])
def test_onnx_gives_torchs_maps_for_any_batch(kind, network, tmp_path):
    detector = ErrorMap(network) if kind == "one" else fused()[1]
    export_onnx(detector, tmp_path / "network.onnx", 64, (GRID_NAME,))
    exported = Exported(tmp_path / "network.onnx", 1)
    assert (exported.height, exported.width, exported.shapes) == (64, 64, [(64, 64)])
    for n in (1, 2, 5):
        with torch.no_grad():
            want = detector(images(n)).numpy()
        (got,) = exported(images(n).numpy())
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5 * want.max())
