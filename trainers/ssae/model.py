"""The network F of SSAE (Table 1) and the detector made of it: picture in, map of squared errors out.

Table 1's first number of each row is taken as the layer's channels; the last of its output size, which differs in some
rows, is those of the row below. `width` scales all of them. Letters: N batch, C channels, H W picture.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.dataset.pixels import in_unit_range
from trainers.width import scaled

CHANNELS = (64, 128, 256)  # of the three resolutions above the bottleneck
STACK_CHANNELS = 64  # of each dilated convolution
DILATIONS = (1, 2, 4, 8, 16, 32)
_TAPS = 5  # along each side of a dilated convolution
STACKS = 4
STRIDE = 8  # of the bottleneck: each of the three resolutions halves


class Dilated(nn.Conv2d):
    """A 5x5 convolution with dilation, padded to the size of its input: (N, channels, h, w) -> (N, out, h, w).

    Of a small map the outer taps of a wide one see only padding: they are left out, which changes nothing but the time.
    """

    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__(channels, out, _TAPS, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        dilation, middle = self.dilation[0], _TAPS // 2
        reach = min(middle, (max(x.shape[-2:]) - 1) // dilation)  # taps to each side
        taps = slice(middle - reach, middle + reach + 1)
        return F.conv2d(x, self.weight[..., taps, taps], self.bias, padding=reach * dilation, dilation=dilation)


class StackedDilated(nn.Module):
    """SDC: parallel 5x5 convolutions of several dilations, concatenated, then one 3x3 convolution over all of them.

    (N, channels, h, w) -> (N, 6 * each, h, w).
    """

    def __init__(self, channels: int, each: int) -> None:
        super().__init__()
        self.parallel = nn.ModuleList(Dilated(channels, each, d) for d in DILATIONS)
        out = each * len(DILATIONS)
        self.joint = nn.Sequential(*_conv(out, out))

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.joint(torch.cat([conv(x) for conv in self.parallel], dim=1))
        return joined


class Autoencoder(nn.Module):
    """F of the paper: (N, 3, H, W) in [0, 1] -> the same shape in (0, 1), for any H and W.

    `width` is the share of Table 1's channels that each layer has.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        sizes = [3, *(scaled(c, width) for c in CHANNELS)]  # e.g. 3, 64, 128, 256
        each = scaled(STACK_CHANNELS, width)
        stacked = each * len(DILATIONS)
        encoder: list[nn.Module] = []
        for channels, out in pairwise(sizes):
            encoder += [*_conv(channels, out), *_conv(out, out), nn.MaxPool2d(2)]
        bottleneck = [StackedDilated(sizes[-1] if i == 0 else stacked, each) for i in range(STACKS)]
        decoder: list[nn.Module] = []
        for channels, out in pairwise([stacked, *reversed(sizes[1:])]):
            decoder += [*_up(channels, out), *_conv(out, out), *_conv(out, out)]
        self.layers = nn.Sequential(*encoder, *bottleneck, *decoder, nn.Conv2d(sizes[1], 3, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        bottom, right = -height % STRIDE, -width % STRIDE
        padded = F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
        out: Tensor = self.layers(padded)
        return out[..., :height, :width]


class ErrorMap(nn.Module):
    """The score map of one F, as served: (N, H, W, 3) uint8 RGB -> (N, H, W), the channel mean of (F(X) - X)^2."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        x = in_unit_range(images)
        error: Tensor = self.autoencoder(x) - x
        return error.square().mean(dim=1)


class FusedMap(nn.Module):
    """The mean of several error maps, each divided by its own scale: one detector of both objectives."""

    scales: Tensor

    def __init__(self, members: list[ErrorMap], scales: list[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("scales", torch.tensor(scales))

    def forward(self, images: Tensor) -> Tensor:
        maps = [member(images) / self.scales[i] for i, member in enumerate(self.members)]  # (N, H, W) each
        return torch.stack(maps).mean(dim=0)


def _conv(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()


def _up(channels: int, out: int) -> tuple[nn.Module, ...]:
    """Twice the height and width."""
    up = nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1, bias=False)
    return up, nn.BatchNorm2d(out), nn.ReLU()
