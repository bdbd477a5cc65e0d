"""MS-SSIM (Wang, Simoncelli and Bovik 2003), m of equations (12) and (17), as one number and as a map.

Written here because the loss needs what the libraries lack: the value at every place (equation 17), patches of 32 px,
and a gradient that stays finite where a scale does not correlate at all (pytorch-msssim gives NaN there). The tests
hold it equal to pytorch-msssim. Letters: N batch, C channels, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIGMA_PX = 1.5  # of the Gaussian window
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]
_TINY = 1e-6  # a correlation below it counts as none: the power's derivative is not finite at 0


@dataclass(frozen=True, slots=True)
class Scales:
    """Side of the window in pixels, and the weight of each scale from the finest on; each halves the one before."""

    window: int
    weights: tuple[float, ...]

    @property
    def min_side_px(self) -> int:
        """Of a picture: its coarsest scale must hold one window."""
        return int(self.window * 2 ** (len(self.weights) - 1))


GLOBAL = Scales(11, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333))  # Wang's
LOCAL = Scales(3, (0.0516, 0.3295, 0.3463, 0.2726))  # its first four, scaled to a sum of one


def for_side(side_px: int) -> Scales:
    """Those of the global model where the picture is large enough, else those of the local one."""
    return GLOBAL if side_px >= GLOBAL.min_side_px else LOCAL


class MsSsim(nn.Module):
    """Compares pictures (N, C, H, W) in [0, 1] whose sides are multiples of 16.

    `forward` gives the similarity of each scale at every place where the window fits: contrast and structure, and at
    the coarsest scale luminance too. `score` and `at_every_place` make m of it.
    """

    taps: Tensor

    def __init__(self, scales: Scales) -> None:
        super().__init__()
        self.scales = scales
        distance = torch.arange(scales.window, dtype=torch.float64) - scales.window // 2
        taps = torch.exp(-distance.square() / (2 * SIGMA_PX**2))
        self.register_buffer("taps", (taps / taps.sum()).float(), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Two batches (N, C, H, W) -> (N, C, H / 2^j - window + 1, W / 2^j - window + 1) for each scale j."""
        found = []
        for j in range(len(self.scales.weights)):
            if j:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
            luminance, contrast = self._compare(x, y)
            found.append(contrast if j < len(self.scales.weights) - 1 else luminance * contrast)
        return found

    def score(self, levels: list[Tensor]) -> Tensor:
        """m of whole pictures (N,): the product over scales of the mean over places, averaged over channels."""
        product = torch.ones(())
        for level, weight in zip(levels, self.scales.weights, strict=True):
            product = product.to(level) * _power(level.mean(dim=(2, 3)), weight)  # (N, C)
        return product.mean(dim=1)

    def at_every_place(self, levels: list[Tensor]) -> Tensor:
        """m at every place (N, H, W): each scale stretched to the picture, their product averaged over channels.

        At the border, where no window fits, a scale has its nearest value.
        """
        product = torch.ones(())
        for j, (level, weight) in enumerate(zip(levels, self.scales.weights, strict=True)):
            powered = F.pad(level.clamp_min(0) ** weight, [self.scales.window // 2] * 4, mode="replicate")
            if j:
                powered = F.interpolate(powered, scale_factor=2**j, mode="bilinear", align_corners=False)
            product = product.to(level) * powered  # (N, C, H, W)
        return product.mean(dim=1)

    def _compare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Luminance, and contrast with structure, of one scale."""
        moments = self._blur(torch.stack([x, y, x * x + y * y, x * y]))
        mean_x, mean_y, both, xy = moments.unbind(0)  # (N, C, h, w) each
        squares, product = mean_x.square() + mean_y.square(), mean_x * mean_y
        luminance = (2 * product + C1) / (squares + C1)
        contrast = (2 * (xy - product) + C2) / (both - squares + C2)
        return luminance, contrast

    def _blur(self, x: Tensor) -> Tensor:
        """The window's weighted mean wherever it fits: (..., H, W) -> (..., H - window + 1, W - window + 1).

        As two products with banded matrices: on a CPU faster than convolutions of three channels, forth and back.
        """
        rows, columns = (self._band(side) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def _band(self, side: int) -> Tensor:
        """(side - window + 1, side): the window at every place of an axis."""
        out = side - self.scales.window + 1
        padded = F.pad(self.taps, [0, out])  # one row and the gap to the next row's start
        return padded.repeat(out)[: out * side].view(out, side)


def _power(value: Tensor, weight: float) -> Tensor:
    """max(value, 0) ** weight with a finite gradient everywhere."""
    some = value > _TINY
    return torch.where(some, torch.where(some, value, torch.ones_like(value)) ** weight, torch.zeros_like(value))
