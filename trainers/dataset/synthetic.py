"""Defects made up on good pictures, to judge settings without a test label.

A patch is deformed, or replaced by another place of the picture (Figure 4 of SSAE).
"""

from __future__ import annotations

import torch

from engine.types import U8
from trainers.ssae.corrupt import Corruption, Kind

DEFECTS: tuple[Kind, ...] = ("elastic", "swap")
_SIDES = (0.08, 0.25)  # of the patch, as shares of the picture's


def with_defect(good: U8, kind: Kind, generator: torch.Generator) -> U8:
    """Good pictures (n, H, W, 3) with a defect each; the generator lives on the CPU."""
    pictures = torch.from_numpy(good).permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
    made = Corruption(kind, patches=1, sides=_SIDES)(pictures, generator).corrupted
    defective: U8 = (255 * made).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return defective
