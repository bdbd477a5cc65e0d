"""Coarse alignment: of pictures by a rotation (ICA, equations 1 and 2) and of features by an affine map (FCA).

Both share one small network (the paper's Figure 4): two 3x3 convolutions, two max-pools, two fully-connected layers.
Both start as the identity. An affine map A (2, 3) says where an aligned picture is sampled: aligned(p) = picture(A p~),
p~ = (x, y, 1) with x and y in [-1, 1] from the left and top edges (align_corners=False).

Where this differs from the text: the angle comes out as (cos, sin) instead of radians, pictures are compared at
`ICA_SIDE_PX` instead of full size, and the ICA's gradient is limited, because without these it did not converge; the
FCA is bounded, because unbounded it turns into one constant zoom.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ICA_SIDE_PX = 32
CONV_CHANNELS = (16, 32)
HIDDEN = 64
EPS = 1e-6


class Localiser(nn.Module):
    """(N, channels, side, side) -> (N, len(identity)); gives `identity` for every input before it is trained."""

    def __init__(self, channels: int, side: int, identity: tuple[float, ...]) -> None:
        super().__init__()
        first, second = CONV_CHANNELS
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (side // 4) ** 2, HIDDEN),
            nn.ReLU(),
        )
        self.last = nn.Linear(HIDDEN, len(identity))
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor(identity))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.layers(x))
        return out


class ImageAlignment(nn.Module):
    """ICA: turns normalised pictures (N, 3, side_px, side_px) to one common direction."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.factor = side_px // ICA_SIDE_PX
        self.localiser = Localiser(3, side_px // self.factor, identity=(1.0, 0.0))

    def shrink(self, pictures: Tensor) -> Tensor:
        """(N, 3, side_px, side_px) -> (N, 3, s, s), s about ICA_SIDE_PX, by averaging."""
        return F.avg_pool2d(pictures, self.factor)

    def rotation(self, small: Tensor) -> Tensor:
        """(N, 3, s, s) -> affine maps (N, 2, 3)."""
        cos, sin = F.normalize(self.localiser(small), dim=1, eps=EPS).unbind(1)
        return rotation(cos, sin)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, side_px, side_px) -> affine maps (N, 2, 3)."""
        return self.rotation(self.shrink(pictures))

    def loss(self, pictures: Tensor, partner: Tensor) -> Tensor:
        """Equation 2 at low resolution: the distance between each picture and its `partner` (N,), both aligned."""
        small = self.shrink(pictures)
        aligned = warp(small, self.rotation(small))
        return pair_distance(aligned, aligned[partner])


class FeatureAlignment(nn.Module):
    """FCA: six affine parameters from the features themselves, each within `bound` of the identity's."""

    identity: Tensor

    def __init__(self, channels: int, side: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.localiser = Localiser(channels, side, identity=(0.0,) * 6)
        self.register_buffer("identity", torch.eye(2, 3), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> affine maps (N, 2, 3)."""
        offset = self.bound * torch.tanh(self.localiser(features))
        return self.identity + offset.view(-1, 2, 3)


def rotation(cos: Tensor, sin: Tensor) -> Tensor:
    """Cosines and sines (N,) -> affine maps (N, 2, 3)."""
    zero = torch.zeros_like(cos)
    return torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)


def warp(x: Tensor, affine: Tensor) -> Tensor:
    """(N, C, H, W) sampled bilinearly where `affine` (N, 2, 3) says; outside, the nearest border value."""
    positions = F.affine_grid(affine, list(x.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(x, positions, mode="bilinear", padding_mode="border", align_corners=False)


def pair_distance(a: Tensor, b: Tensor) -> Tensor:
    """Equation 2 for pictures (N, C, H, W): the L2 norm over channels, summed over pixels; the mean over pairs."""
    return (a - b).square().sum(dim=1).add(EPS).sqrt().sum(dim=(1, 2)).mean()


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The map of warping by `first` and then warping the result by `second`: (N, 2, 3) each."""
    linear = first[:, :, :2] @ second[:, :, :2]  # (N, 2, 2)
    shift = first[:, :, :2] @ second[:, :, 2:] + first[:, :, 2:]  # (N, 2, 1)
    return torch.cat([linear, shift], dim=2)


def inverse(affine: Tensor) -> Tensor:
    """The inverse maps (N, 2, 3) of invertible ones, in closed form, so that it exports to ONNX."""
    a, b, tx, c, d, ty = affine.flatten(1).unbind(1)
    det = a * d - b * c
    rows = [d, -b, b * ty - d * tx, -c, a, c * tx - a * ty]
    return (torch.stack(rows, dim=1) / det[:, None]).view(-1, 2, 3)
