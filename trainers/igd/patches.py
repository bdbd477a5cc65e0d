"""The local model's patches: cut from pictures, and their maps put together to the picture's again.

Patches of 32 px at a stride of 16 px, so each is 2 x 2 blocks of a picture's grid of blocks. Letters: N pictures,
C channels, b = side / 16 blocks a side, p = b - 1 patches a side. Patches come picture by picture, row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.dataset import patches

STRIDE_PX = 16
PATCH_PX = 2 * STRIDE_PX
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def patches_a_side(side_px: int) -> int:
    """p: 15 at 256 px."""
    return patches.per_side(side_px, PATCH_PX, STRIDE_PX)


def cut(pictures: Tensor) -> Tensor:
    """(N, C, side, side) -> patches (N p^2, C, 32, 32)."""
    return patches.cut(pictures, PATCH_PX, STRIDE_PX)


def joined(maps: Tensor, per_side: int) -> Tensor:
    """Maps of patches (N p^2, 32, 32) -> (N, side, side): at each place the mean of the patches that show it."""
    p, s = per_side, STRIDE_PX
    grid = maps.reshape(-1, p, p, 2, s, 2, s)
    shown = torch.ones((1, p, p, 1, 1), dtype=maps.dtype, device=maps.device)
    sums, counts = [], []
    for row, column in _CORNERS:
        around = [0, 0, 0, 0, column, 1 - column, row, 1 - row]
        sums.append(F.pad(grid[:, :, :, row, :, column], around))  # (N, b, b, 16, 16)
        counts.append(F.pad(shown, around))
    side_px = (p + 1) * s
    mean = torch.stack(sums).sum(dim=0) / torch.stack(counts).sum(dim=0)
    return mean.permute(0, 1, 3, 2, 4).reshape(-1, side_px, side_px)
