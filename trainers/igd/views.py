"""A random view of each picture, as SimCLR takes them: a crop, perhaps mirrored, in other light, perhaps grey."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.dataset.crops import random_crop

MIN_SIDE = 0.5  # of a crop, as a share of the picture's
JITTER = 0.4  # brightness and contrast change by a factor within 1 +- this
GREY = 0.2  # share of pictures that lose their colour


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, side, side) in [0, 1] -> the same shape and range."""
    n = len(x)
    draws = torch.rand((7, n), generator=generator).to(x.device)
    side = MIN_SIDE + (1 - MIN_SIDE) * draws[0]
    crop = random_crop(x, side, draws[1:3], draws[3] < 0.5)
    return _relit(crop, draws[4:])


def _relit(x: Tensor, draws: Tensor) -> Tensor:
    brightness, contrast = (1 + JITTER * (2 * draws[:2] - 1))[:, :, None, None, None]
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = ((x - mean) * contrast + mean) * brightness
    grey = x.mean(dim=1, keepdim=True).expand_as(x)
    return torch.where(draws[2][:, None, None, None] < GREY, grey, x).clamp(0, 1)
