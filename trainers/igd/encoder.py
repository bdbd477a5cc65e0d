"""The encoder f: a trunk that turns a picture into features (about 512 numbers), then one linear layer to Z = 128.

The trunk is an ImageNet backbone, or a ResNet-18 of some width that learns: with the rest (from scratch), from a
backbone (distillation) or from itself (self-supervision). Only from scratch does it go on learning with the rest.
Letters: N batch, C channels, H W picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.backbones import STRIDES, Backbone
from trainers.backbones.resnet import BasicBlock
from trainers.width import scaled

STAGES = (64, 128, 256, 512)  # ResNet-18's channels
REDUCTION = 8  # of the sides, by the stages after the stem
POOL = 2  # features keep this many rows and columns: without any, where things are would be lost
FEATURES = 512  # of a trunk that imitates none


class BackboneTrunk(nn.Module):
    """The last level of an ImageNet backbone: (N, 3, side, side) in [0, 1] -> (N, features)."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, side_px: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.window = side_px // STRIDES[-1] // POOL
        self.features = backbone.channels[-1] * POOL**2
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = (255 * x - self.mean) / self.std
        for index in range(len(STRIDES)):
            x = self.backbone.level(index, x)
        return F.avg_pool2d(x, self.window).flatten(1)


class ResidualTrunk(nn.Module):
    """ResNet-18 with a share `width` of its channels: (N, 3, side, side) in [0, 1] -> (N, features).

    Its stem is one convolution; its last stage has as many channels as `features` needs.
    """

    def __init__(self, side_px: int, width: float, features: int) -> None:
        super().__init__()
        stride = stem_stride(side_px)
        channels = [*stage_channels(width)[:-1], features // POOL**2]
        self.features = features
        self.window = side_px // (stride * REDUCTION) // POOL
        stem = nn.Conv2d(3, channels[0], 2 * stride, stride=stride, padding=stride // 2, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(channels[0]), nn.ReLU())
        blocks: list[nn.Module] = []
        for i, out in enumerate(channels):
            blocks += [BasicBlock(channels[max(i - 1, 0)], out, 2 if i else 1), BasicBlock(out, out, 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.stem(x))  # (N, C, h, w)
        return F.avg_pool2d(out, self.window).flatten(1)


Trunk = BackboneTrunk | ResidualTrunk


def standard_of(features: Tensor) -> nn.BatchNorm1d:
    """Brings features (N, F) onto the scale on which the given ones (K, F) have mean 0 and variance 1; fixed."""
    var, mean = torch.var_mean(features.double(), dim=0)
    standard = nn.BatchNorm1d(features.shape[1], affine=False).to(features)
    standard.running_mean, standard.running_var = mean.to(features), var.to(features)
    return standard.eval()


def stem_stride(side_px: int) -> int:
    """How much the first convolution reduces: as ResNet-18's stem, or less where POOL rows would not be left."""
    return 4 if side_px >= 4 * REDUCTION * POOL else 2


def stage_channels(width: float) -> tuple[int, ...]:
    """The channels of ResNet-18's stages at a share `width`."""
    return tuple(scaled(c, width) for c in STAGES)
