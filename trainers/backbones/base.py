"""What every backbone is: a network of three feature levels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

STRIDES = (4, 8, 16)


class Backbone(nn.Module):
    """Base of the backbones. `mean` and `std` are of 0..255 RGB values; `channels` are those of the three levels.

    Weight files hold the whole classifier: keys under `unused_prefixes` belong to parts that are not built here.
    """

    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    unused_prefixes: ClassVar[tuple[str, ...]]
    channels: tuple[int, int, int]

    def level(self, index: int, x: Tensor) -> Tensor:
        """Level 0: the normalised picture (N, 3, H, W) -> (N, C_0, H/4, W/4); level i: the level before -> half."""
        raise NotImplementedError
