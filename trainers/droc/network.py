"""The feature extractor f: a patch (N, 3, patch, patch) in [0, 1] to its representation, or all patches of a picture.

Three kinds: the published ResNet-18, which pads every layer and so sees patches one by one; a network without padding
whose receptive field is exactly the patch, which sees all patches of a picture at once, at its own stride; and an
ImageNet backbone, which is a baseline. Letters: N batch, D features, H W picture, h w grid, p patches a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.backbones import STRIDES, Backbone
from trainers.backbones.resnet import BasicBlock
from trainers.dataset.patches import cut, per_side
from trainers.width import scaled

STAGES = (64, 128, 256, 512)  # ResNet-18's channels
LARGE_PX = 128  # from here on the stem is ImageNet's

# Of the networks without padding, by the side of the patch: (channels, kernel, stride) of each convolution.
_BEGIN = (64, 4, 2), (64, 3, 1), (128, 3, 1), (128, 3, 2), (256, 3, 1)
PADDING_FREE = {
    32: (*_BEGIN, (512, 3, 1)),
    64: (*_BEGIN, (256, 3, 2), (512, 3, 1), (512, 3, 1)),
}
PADDING_FREE_OVERLAP = 8  # of their steps make up a patch


class Trunk(nn.Module):
    """Base of the three; `features` is D, `stride_px` the step from patch to patch of `dense`."""

    features: int

    def __init__(self, patch_px: int, stride_px: int) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.stride_px = stride_px

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 3, patch, patch) -> (N, D)."""
        raise NotImplementedError

    def dense(self, pictures: Tensor) -> Tensor:
        """Patch by patch: (N, 3, side, side) -> (N, D, p, p)."""
        p = per_side(pictures.shape[3], self.patch_px, self.stride_px)
        of_patches: Tensor = self(cut(pictures, self.patch_px, self.stride_px))  # (N p^2, D)
        return of_patches.reshape(-1, p * p, self.features).permute(0, 2, 1).reshape(-1, self.features, p, p)


class ResNet18(Trunk):
    """He et al. 2016 with a share `width` of its channels; f is the average over the last stage's places.

    Below 128 px its stem is a 3x3 convolution without pooling, from there on 7x7 with stride 2 and pooling.
    """

    def __init__(self, patch_px: int, stride_px: int, width: float) -> None:
        super().__init__(patch_px, stride_px)
        channels = [scaled(c, width) for c in STAGES]
        large = patch_px >= LARGE_PX
        kernel, stride = (7, 2) if large else (3, 1)
        stem: list[nn.Module] = [nn.Conv2d(3, channels[0], kernel, stride, padding=kernel // 2, bias=False)]
        stem += [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(3, stride=2, padding=1)] if large else []))
        blocks: list[nn.Module] = []
        for i, out in enumerate(channels):
            blocks += [BasicBlock(channels[max(i - 1, 0)], out, 2 if i else 1), BasicBlock(out, out, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.features = channels[-1]

    def forward(self, patches: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        out: Tensor = self.blocks(self.stem(patches))  # (N, D, h, w)
        return out.mean(dim=(2, 3))


class PaddingFree(Trunk):
    """Convolutions without padding that reduce a patch to one place: what surrounds the patch has no part in it."""

    def __init__(self, patch_px: int, width: float) -> None:
        super().__init__(patch_px, patch_px // PADDING_FREE_OVERLAP)
        modules: list[nn.Module] = []
        channels = 3
        for out, kernel, step in PADDING_FREE[patch_px]:
            modules += [nn.Conv2d(channels, scaled(out, width), kernel, step, bias=False)]
            channels = scaled(out, width)
            modules += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*modules)
        self.features = channels

    def forward(self, patches: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        return self.dense(patches)[:, :, 0, 0]

    def dense(self, pictures: Tensor) -> Tensor:
        """All patches at once: (N, 3, H, W) -> (N, D, h, w), the same numbers as patch by patch."""
        out: Tensor = self.layers(pictures)
        return out


class ImageNet(Trunk):
    """A backbone's last level, averaged over its places; it does not learn."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, patch_px: int, stride_px: int) -> None:
        super().__init__(patch_px, stride_px)
        self.backbone = backbone
        self.features = backbone.channels[-1]
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        x = (255 * patches - self.mean) / self.std
        for index in range(len(STRIDES)):
            x = self.backbone.level(index, x)
        return x.mean(dim=(2, 3))
