"""EfficientNet-Lite0 up to its stride-16 features, with the key names of the PyPI weight file.

Tan and Le 2019, "lite" variant: no squeeze-and-excitation, ReLU6. TensorFlow's "same" padding is written out as fixed
zeros for the side the network is built for: computed from dynamic shapes it would break int8 quantisation.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from trainers.backbones.base import Backbone

BN_EPS = 1e-3


class Stage(NamedTuple):
    """A run of inverted-residual blocks of one shape."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),  # level 0, stride 4
    Stage(2, 5, 2, 6, 40),  # level 1, stride 8
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),  # level 2, stride 16
)
LEVEL_BLOCKS = (range(3), range(3, 5), range(5, 11))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and a shortcut where the shape allows."""

    def __init__(self, channels: int, stage: Stage, stride: int, side_px: int) -> None:
        super().__init__()
        width = channels * stage.expansion
        self._expands = stage.expansion > 1
        self._adds = stride == 1 and channels == stage.channels
        if self._expands:
            self._expand_conv = nn.Conv2d(channels, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=BN_EPS)
        self._pad = same_padding(side_px, stage.kernel, stride)
        self._depthwise_conv = nn.Conv2d(width, width, stage.kernel, stride=stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=BN_EPS)
        self._project_conv = nn.Conv2d(width, stage.channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(stage.channels, eps=BN_EPS)
        self._relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = self._relu6(self._bn1(self._depthwise_conv(self._pad(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


class EfficientNetLite0(Backbone):
    """The stem and the first eleven blocks, for square pictures of `side_px`, a multiple of 16."""

    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)
    channels = (24, 40, 112)
    unused_prefixes = ("_conv_head.", "_bn1.", "_fc.", *(f"_blocks.{i}." for i in range(11, 16)))

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self._pad = same_padding(side_px, 3, 2)
        self._conv_stem = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM_CHANNELS, eps=BN_EPS)
        self._relu6 = nn.ReLU6()
        self._blocks = nn.ModuleList(_blocks(side_px // 2))

    def level(self, index: int, x: Tensor) -> Tensor:
        """See `Backbone.level`."""
        if index == 0:
            x = self._relu6(self._bn0(self._conv_stem(self._pad(x))))  # (N, 32, H/2, W/2)
        for block in LEVEL_BLOCKS[index]:
            x = self._blocks[block](x)
        return x


def same_padding(side_px: int, kernel: int, stride: int) -> nn.ZeroPad2d:
    """TensorFlow's "same" padding of a convolution over a square input: the odd pixel goes right and below."""
    out = -(-side_px // stride)
    total = max((out - 1) * stride + kernel - side_px, 0)
    before, after = total // 2, total - total // 2
    return nn.ZeroPad2d((before, after, before, after))


def _blocks(side_px: int) -> list[InvertedResidual]:
    blocks: list[InvertedResidual] = []
    channels = STEM_CHANNELS
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            blocks.append(InvertedResidual(channels, stage, stride, side_px))
            side_px, channels = -(-side_px // stride), stage.channels
    return blocks
