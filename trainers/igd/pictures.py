"""Pictures and patches as torch takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized, on_disc
from trainers.igd.patches import PATCH_PX, cut, patches_a_side

_BATCH = 32


def unit(pictures: Resized, rows: Tensor) -> Tensor:
    """Those with these numbers as (n, 3, side, side) in [0, 1]."""
    return in_unit_range(torch.from_numpy(pictures.take(rows.numpy())))


def patches(pictures: Resized, side_px: int, most: int, seed: int) -> Resized:
    """All patches of all pictures, or `most` of them drawn by the seed, in the order of the pictures."""
    each = patches_a_side(side_px) ** 2
    count = len(pictures) * each
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(count)[:most])
    pixels = on_disc((len(rows), PATCH_PX, PATCH_PX, 3))
    for start in range(0, len(pictures), _BATCH):
        some = range(start, min(start + _BATCH, len(pictures)))
        found = cut(torch.from_numpy(pictures.take(some)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        first, last = np.searchsorted(rows, (start * each, (some[-1] + 1) * each))
        pixels[first:last] = found[rows[first:last] - start * each]
    return Resized(pixels, np.arange(len(rows)))
