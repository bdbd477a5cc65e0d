"""MS-SSIM (Wang, Simoncelli and Bovik 2003), m of equations (12) and (17), as one number and as a map.

Written here because the loss needs what the libraries lack: the value at every place (equation 17), patches of 32 px,
and a gradient that stays finite where a scale does not correlate at all (pytorch-msssim gives NaN there). The tests
hold it equal to pytorch-msssim. Letters: N batch, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.maps import bilinear

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
    """Compares square pictures (N, C, side, side) in [0, 1]; the side halves as often as there are scales.

    `forward` gives the similarity of each scale at every place where the window fits: contrast and structure, and at
    the coarsest scale luminance too. `score` and `at_every_place` make m of it. Windows and stretching are products
    with matrices: on a CPU faster than convolutions of three channels, forth and back.
    """

    def __init__(self, scales: Scales, side_px: int) -> None:
        super().__init__()
        self.scales = scales
        for j in range(len(scales.weights)):
            side = side_px // 2**j
            self.register_buffer(f"window{j}", _windows(scales.window, side), persistent=False)
            self.register_buffer(f"stretch{j}", _stretch(scales.window, side, side_px), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Two batches (N, C, side, side) -> (N, C, s, s) for each scale j, s = side / 2^j - window + 1."""
        found = []
        for j in range(len(self.scales.weights)):
            if j:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
            luminance, contrast = _compare(x, y, self.get_buffer(f"window{j}"))
            found.append(contrast if j < len(self.scales.weights) - 1 else luminance * contrast)
        return found

    def score(self, levels: list[Tensor]) -> Tensor:
        """m of whole pictures (N,): the product over scales of the mean over places, averaged over channels."""
        powers = [_power(level.mean(dim=(2, 3)), w) for level, w in zip(levels, self.scales.weights, strict=True)]
        return torch.stack(powers).prod(dim=0).mean(dim=1)

    def at_every_place(self, levels: list[Tensor]) -> Tensor:
        """m at every place (N, side, side): each scale stretched to the picture, their product averaged over channels.

        At the border, where no window fits, a scale has its nearest value.
        """
        product: Tensor | None = None
        for j, (level, weight) in enumerate(zip(levels, self.scales.weights, strict=True)):
            stretch = self.get_buffer(f"stretch{j}")
            places = stretch @ level.clamp_min(0) ** weight @ stretch.T  # (N, C, side, side)
            product = places if product is None else product * places
        assert product is not None
        return product.mean(dim=1)


def _compare(x: Tensor, y: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast with structure, of one scale."""
    moments = windows @ torch.stack([x, y, x * x + y * y, x * y]) @ windows.T
    mean_x, mean_y, both, xy = moments.unbind(0)  # (N, C, s, s) each
    squares, product = mean_x.square() + mean_y.square(), mean_x * mean_y
    luminance = (2 * product + C1) / (squares + C1)
    contrast = (2 * (xy - product) + C2) / (both - squares + C2)
    return luminance, contrast


def _windows(window: int, side: int) -> Tensor:
    """(side - window + 1, side): the Gaussian window at every place of an axis where it fits."""
    distance = np.arange(window) - window // 2
    taps = np.exp(-(distance**2) / (2 * SIGMA_PX**2))
    rows = np.arange(side - window + 1)
    matrix = np.zeros((len(rows), side))
    for k, tap in enumerate(taps / taps.sum()):
        matrix[rows, rows + k] = tap
    return torch.from_numpy(matrix).float()


def _stretch(window: int, side: int, side_px: int) -> Tensor:
    """(side_px, side - window + 1): border values repeated, then bilinear interpolation from `side` to `side_px`."""
    nearest = np.clip(np.arange(side) - window // 2, 0, side - window)
    return torch.from_numpy(bilinear(side, side_px) @ np.eye(side - window + 1)[nearest]).float()


def _power(value: Tensor, weight: float) -> Tensor:
    """max(value, 0) ** weight with a finite gradient everywhere."""
    some = value > _TINY
    return torch.where(some, torch.where(some, value, torch.ones_like(value)) ** weight, torch.zeros_like(value))
