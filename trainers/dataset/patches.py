"""Square patches cut from square pictures at a stride.

A patch is r x r blocks of a picture's grid of blocks, r = patch / stride. Letters: N pictures, C channels, b blocks a
side, p patches a side. Patches come picture by picture, row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_side(side_px: int, patch_px: int, stride_px: int) -> int:
    """p: 15 for patches of 32 px at a stride of 16 px in 256 px."""
    return (side_px - patch_px) // stride_px + 1


def cut(pictures: Tensor, patch_px: int, stride_px: int) -> Tensor:
    """(N, C, side, side) -> (N p^2, C, patch, patch); the stride divides the patch and the side."""
    channels, blocks = pictures.shape[1], pictures.shape[3] // stride_px
    r = patch_px // stride_px
    p = blocks - r + 1
    grid = pictures.reshape(-1, channels, blocks, stride_px, blocks, stride_px)
    grid = grid.permute(0, 2, 4, 1, 3, 5)  # (N, b, b, C, stride, stride)
    tall = torch.cat([grid[:, i : i + p] for i in range(r)], dim=4)  # (N, p, b, C, patch, stride)
    whole = torch.cat([tall[:, :, i : i + p] for i in range(r)], dim=5)  # (N, p, p, C, patch, patch)
    return whole.reshape(-1, channels, patch_px, patch_px)
