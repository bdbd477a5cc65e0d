"""Random views of good pictures: crops of one size, quarter turns, mirror images."""

from __future__ import annotations

import torch
from torch import Tensor


def crop(pictures: Tensor, side_px: int, generator: torch.Generator) -> Tensor:
    """(N, C, H, W) -> (N, C, side_px, side_px) from random places, one for each picture."""
    room = torch.tensor(pictures.shape[-2:]) - side_px + 1
    corner = (torch.rand(len(pictures), 2, generator=generator) * room).long().tolist()
    return torch.stack([x[:, i : i + side_px, j : j + side_px] for x, (i, j) in zip(pictures, corner, strict=True)])


def turn(pictures: Tensor, *, rotations: bool, flips: bool, generator: torch.Generator) -> Tensor:
    """Square pictures (N, C, H, H), each turned by a random multiple of 90 degrees and mirrored or not."""
    turns = torch.randint(4 if rotations else 1, (len(pictures),), generator=generator).tolist()
    mirrors = torch.randint(2 if flips else 1, (len(pictures), 2), generator=generator).tolist()
    ways = zip(pictures, turns, mirrors, strict=True)
    return torch.stack([_turned(x, quarters, bool(up), bool(left)) for x, quarters, (up, left) in ways])


def _turned(picture: Tensor, quarters: int, upside_down: bool, mirrored: bool) -> Tensor:
    axes = [axis for axis, wanted in ((-2, upside_down), (-1, mirrored)) if wanted]
    return torch.rot90(picture.flip(axes), quarters, (-2, -1))
