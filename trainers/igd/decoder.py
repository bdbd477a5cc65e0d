"""The decoder g, ResNet-18 in reverse, and the critic d. Letters: N batch, C channels, Z representation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trainers.igd.encoder import REDUCTION, stage_channels, stem_stride

LATENT = 128  # Z
SLOPE = 0.2  # of the critic's leaky ReLU


class ReverseBlock(nn.Module):
    """A residual block that doubles the sides: (N, C, h, w) -> (N, out, 2 h, 2 w)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.shortcut = nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        skipped, x = _doubled(self.shortcut(x)), _doubled(x)
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(x)) + skipped)
        return out


def _doubled(x: Tensor) -> Tensor:
    """Each place four times: (N, C, h, w) -> (N, C, 2 h, 2 w)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Decoder(nn.Module):
    """g: (N, Z) -> pictures (N, 3, side, side) in (0, 1)."""

    def __init__(self, side_px: int, width: float) -> None:
        super().__init__()
        stride = stem_stride(side_px)
        first, *rest = reversed(stage_channels(width))  # e.g. 128, then 64, 32, 16
        self.shape = (first, side_px // (stride * REDUCTION), side_px // (stride * REDUCTION))
        self.start = nn.Linear(LATENT, self.shape[0] * self.shape[1] * self.shape[2])
        channels = [first, *rest]
        self.blocks = nn.Sequential(*(ReverseBlock(a, b) for a, b in zip(channels, rest, strict=False)))
        self.stem = nn.ConvTranspose2d(rest[-1], 3, 2 * stride, stride=stride, padding=stride // 2)
        self.last = nn.Sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        x = self.start(z).view(-1, *self.shape)
        out: Tensor = self.last(self.stem(self.blocks(x)))
        return out


class Critic(nn.Module):
    """d of (9): pictures (N, 3, side, side) -> the coefficient they are taken to be mixed with, (N,).

    As in Berthelot et al. 2018, the mean of a convolutional network's outputs; without batch norms, because it judges
    two kinds of pictures in batches of one kind.
    """

    def __init__(self, side_px: int, width: float) -> None:
        super().__init__()
        stride = stem_stride(side_px)
        first, *rest = stage_channels(width)
        layers: list[nn.Module] = [nn.Conv2d(3, first, 2 * stride, stride=stride, padding=stride // 2)]
        for channels, out in zip([first, *rest], rest, strict=False):
            layers += [nn.LeakyReLU(SLOPE), nn.Conv2d(channels, out, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(SLOPE), nn.Conv2d(rest[-1], 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.layers(pictures)
        return out.mean(dim=(1, 2, 3))
