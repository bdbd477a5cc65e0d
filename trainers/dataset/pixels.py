"""Pictures as the networks that learn from scratch take them."""

from __future__ import annotations

from torch import Tensor


def in_unit_range(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [0, 1]."""
    return images.float().permute(0, 3, 1, 2) / 255  # in this order: TensorRT moves no uint8
