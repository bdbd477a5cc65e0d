"""What a picture may look like: random views of it, and the distributions that DistAug adds to its own.

Views differ in crop, mirror image, colour and greyness. A distribution is the pictures turned or mirrored, all in one
way; each counts as other pictures, not as another view (Figure 3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.dataset.crops import random_crop

MIN_SIDE = 0.5  # of a crop, as a share of the picture's
JITTER = 0.4  # of brightness, contrast and saturation: factors within 1 +- this; of hue: so many turns at most
GREY = 0.2  # share of pictures that lose their colour

# Figure 7, from left to right: an entry is trained on its own distribution and on all before it.
ACCUMULATED = ("original", "hflip", "rot90", "rot90-hflip", "rot180", "rot180-hflip", "rot270", "rot270-hflip")
ROTATED = ("original", "rot90", "rot180", "rot270")

_FROM_RGB = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # to YIQ


def widened(x: Tensor, distributions: tuple[str, ...]) -> Tensor:
    """(n, 3, side, side) -> (m n, 3, side, side): the n pictures of each distribution in turn."""
    return torch.cat([_changed(x, name) for name in distributions])


def mirrors(distributions: tuple[str, ...]) -> bool:
    """Whether mirror images are pictures of their own, so that they cannot be views as well."""
    return any("hflip" in name for name in distributions)


def view(x: Tensor, generator: torch.Generator, *, mirrored: bool) -> Tensor:
    """A random view of each of (n, 3, side, side) in [0, 1]; `mirrored` lets half of them be mirror images."""
    draws = torch.rand((9, len(x)), generator=generator).to(x.device)
    side = MIN_SIDE + (1 - MIN_SIDE) * draws[0]
    mirror = draws[3] < (0.5 if mirrored else 0.0)
    return _coloured(random_crop(x, side, draws[1:3], mirror), draws[4:])


def _coloured(x: Tensor, draws: Tensor) -> Tensor:
    """Saturation, hue, contrast and brightness are linear: one matrix and one offset for each picture."""
    saturation, contrast, brightness = (1 + JITTER * (2 * draws[:3] - 1))[:, :, None, None]  # (n, 1, 1) each
    saturation = torch.where(draws[4][:, None, None] < GREY, 0.0, saturation)
    angle = 2 * math.pi * JITTER * (2 * draws[3] - 1)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([zero + 1, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    turn = torch.cat([turn[:, :1], saturation * turn[:, 1:]], dim=1)
    forth = _FROM_RGB.to(x.device)
    matrix: Tensor = torch.linalg.inv(forth) @ turn @ forth  # (n, 3, 3)
    mean = x.mean(dim=(2, 3)) @ forth[0]  # (n,) of the luminance, which the matrix keeps
    offset = mean[:, None, None] * (1 - contrast)
    y = (contrast * matrix) @ x.flatten(2) + offset
    seen: Tensor = (brightness * y).clamp(0, 1)
    return seen.view_as(x)


def _changed(x: Tensor, name: str) -> Tensor:
    turn, _, _ = name.partition("-")
    quarters = int(turn[len("rot") :]) // 90 if turn.startswith("rot") else 0
    return torch.rot90(x.flip(3) if "hflip" in name else x, quarters, (2, 3))
