"""ResNet-18 and WideResNet-50-2 up to their third block, with torchvision's key names so that its weight files load.

He et al. 2016; Zagoruyko and Komodakis 2016. Letters: N batch, C channels, H W picture.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainers.backbones.base import Backbone


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, C_in, H, W) -> (N, planes, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.downsample(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the middle one is twice as wide as ResNet-50's (the "-2")."""

    expansion = 4
    widening = 2

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        width, out = planes * self.widening, planes * self.expansion
        self.conv1 = _conv(channels, width, 1, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, out, 1, 1)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(y + self.downsample(x))
        return out


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(Backbone):
    """The stem and blocks 1-3 of a residual network."""

    mean = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    std = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    unused_prefixes = ("layer4.", "fc.")

    def __init__(self, block: Block, depths: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        e = block.expansion
        self.layer1 = _layer(block, 64, 64, depths[0], 1)
        self.layer2 = _layer(block, 64 * e, 128, depths[1], 2)
        self.layer3 = _layer(block, 128 * e, 256, depths[2], 2)
        self.channels = (64 * e, 128 * e, 256 * e)

    def level(self, index: int, x: Tensor) -> Tensor:
        """See `Backbone.level`."""
        if index == 0:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, 64, H/4, W/4)
        out: Tensor = (self.layer1, self.layer2, self.layer3)[index](x)
        return out


def resnet18(side_px: int) -> ResNet:
    """ResNet-18; any picture side divisible by 16 will do."""
    return ResNet(BasicBlock, (2, 2, 2))


def wide_resnet50_2(side_px: int) -> ResNet:
    """WideResNet-50-2; any picture side divisible by 16 will do."""
    return ResNet(Bottleneck, (3, 4, 6))


def _conv(channels: int, out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if stride == 1 and channels == out:
        return nn.Identity()
    return nn.Sequential(_conv(channels, out, 1, stride), nn.BatchNorm2d(out))


def _layer(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, depth: int, stride: int
) -> nn.Module:
    first = block(channels, planes, stride)
    rest = (block(planes * block.expansion, planes, 1) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
