"""The network of FYD: picture in, aligned dense features out. What it exports is what is served.

Letters: N batch, C channels, H W picture, h w grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UsageError
from trainers.backbones import STRIDES, Backbone
from trainers.dataset.pixels import in_unit_range
from trainers.fyd.alignment import FeatureAlignment, ImageAlignment, compose, inverse, warp
from trainers.fyd.settings import Settings


class Network(nn.Module):
    """ICA, then the backbone's three levels with an FCA after each, then one grid of concatenated features.

    Parts that the settings switch off do not exist. `picked` holds the channels of each level that are kept.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, settings: Settings, picked: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        self.ica = ImageAlignment(settings.side_px) if settings.learns and settings.ica else None
        self.fca = nn.ModuleList(_alignments(backbone, settings))
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)
        self.channels = sum(len(index) for index in picked)
        for i, index in enumerate(picked):
            self.register_buffer(f"picked{i}", index, persistent=False)

    @property
    def aligns(self) -> bool:
        """Whether the features lie in another frame than the picture."""
        return self.ica is not None or any(isinstance(part, FeatureAlignment) for part in self.fca)

    def normalised(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32 as the backbone was trained on.

        By way of [0, 1], which changes no bit: other methods begin with these steps, and an ensemble takes them once.
        """
        return (255 * in_unit_range(images) - self.mean) / self.std

    def levels(self, pictures: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(N, 3, H, W) normalised -> the features (N, C_i, h_i, w_i) of each level, and the affine map (N, 2, 3) by
        which each sampled the picture."""
        affine = torch.eye(2, 3, device=pictures.device).expand(pictures.shape[0], 2, 3)
        x = pictures
        if self.ica is not None:
            affine = self.ica(pictures)
            x = warp(pictures, affine)
        features, affines = [], []
        for i, align in enumerate(self.fca):
            x = self.backbone.level(i, x)
            if isinstance(align, FeatureAlignment):
                step = align(x)
                x, affine = warp(x, step), compose(affine, step)
            features.append(x)
            affines.append(affine)
        return features, affines

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 RGB -> features (N, C, h, w); with alignment also the positions (N, h, w, 2) that bring a
        grid of distances back to the picture's frame.

        Each level samples the picture by its own map; a position of the grid is taken to lie at their mean.
        """
        levels, affines = self.levels(self.normalised(images))
        features = torch.cat([self._on_grid(self._pick(i, x)) for i, x in enumerate(levels)], dim=1)  # (N, C, h, w)
        if not self.aligns:
            return features
        back = inverse(torch.stack(affines).mean(0))
        return features, F.affine_grid(back, [images.shape[0], 1, *self.settings.grid], align_corners=False)

    def _pick(self, level: int, x: Tensor) -> Tensor:
        """The channels of a level that are kept."""
        index = self.get_buffer(f"picked{level}")
        return x if len(index) == x.shape[1] else x.index_select(1, index)

    def _on_grid(self, x: Tensor) -> Tensor:
        """(N, C_i, h_i, w_i) -> (N, C_i, h, w): locally averaged, then brought to the common grid."""
        window = self.settings.pooling
        if window > 1:
            x = F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)
        side, grid_side = x.shape[-1], self.settings.grid[0]
        if side > grid_side:
            return F.avg_pool2d(x, side // grid_side)
        return x if side == grid_side else F.interpolate(x, scale_factor=grid_side // side, mode="nearest")


def pick_channels(backbone: Backbone, channels: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The channels of each level that make up a seeded random subset of `channels` of all (PaDiM's reduction).

    Raises UsageError where there are not so many.
    """
    total = sum(backbone.channels)
    if channels is not None and channels > total:
        raise UsageError(f"--channels {channels}: the backbone has {total}; give fewer, or leave it out for all")
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(total, generator=generator)[: channels or total].sort().values
    starts = [0, backbone.channels[0], backbone.channels[0] + backbone.channels[1]]
    first, second, third = (
        kept[(kept >= start) & (kept < start + count)] - start
        for start, count in zip(starts, backbone.channels, strict=True)
    )
    return first, second, third


def _alignments(backbone: Backbone, settings: Settings) -> list[nn.Module]:
    """An FCA, or nothing, after each level."""
    sides = [settings.side_px // stride for stride in STRIDES]
    on = [settings.learns and wanted for wanted in settings.fca]
    return [
        FeatureAlignment(channels, side, settings.fca_bound) if wanted else nn.Identity()
        for channels, side, wanted in zip(backbone.channels, sides, on, strict=True)
    ]
