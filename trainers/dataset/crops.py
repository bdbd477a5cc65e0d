"""Random crops brought back to the picture's size, perhaps mirrored: what self-supervised views begin with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_crop(x: Tensor, side: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
    """(n, C, H, W) -> the same shape, interpolated.

    Of each picture `side` (n,) is the crop's side as a share of the picture's, `place` (2, n) in [0, 1) where it lies
    across and down, `mirrored` (n,) whether it comes as its mirror image.
    """
    shift = (2 * place - 1) * (1 - side)  # (2, n), from the picture's centre, of its half side
    mirror = torch.where(mirrored, -1.0, 1.0)
    zero = torch.zeros_like(side)
    affine = torch.stack([side * mirror, zero, shift[0], zero, side, shift[1]], dim=1).view(-1, 2, 3)
    places = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, places, mode="bilinear", padding_mode="border", align_corners=False)
