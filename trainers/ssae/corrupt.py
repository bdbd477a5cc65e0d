"""Corrupted copies of good pictures (Figure 4), a whole batch at a time.

In each picture a patch X1 of random place and size is taken, a copy X3 of it deformed, and the two glued by a smooth
random shape mask X2 that is zero on the patch's border: X4 = X2 * X3 + (1 - X2) * X1. The masks in place make up M.

Patches differ in size within a batch, so all work is done in square windows as large as the largest of them; u and v
are a window's pixel coordinates relative to its patch, -1 and 1 at the patch's edges. Letters: N batch, S window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.ssae.objective import Pair

Kind = Literal["elastic", "cut-out", "swap"]

_KNOTS = 7  # of the smooth random fields along each side of a patch
_EDGES = 0.15, 0.45  # of the envelope with noise, where the shape mask rises from 0 to 1
_RAGGED = 0.7  # how much noise shapes the mask


@dataclass(frozen=True, slots=True)
class Corruption:
    """How pictures are corrupted; `sides` are the least and largest side of a patch as shares of the picture's.

    `kind` says what X3 is: X1 elastically deformed (the paper's best), zeros, or a patch from elsewhere. `strength` is
    the largest displacement's standard deviation as a share of the patch's side; `brightness` the largest change of
    X3's brightness, 0 for none.
    """

    kind: Kind = "elastic"
    patches: int = 3
    sides: tuple[float, float] = (0.1, 0.4)
    strength: float = 0.15
    brightness: float = 0.0

    def __call__(self, original: Tensor, generator: torch.Generator) -> Pair:
        """Corrupt X (N, 3, H, W) in [0, 1]; the generator lives on the CPU, whatever X does."""
        corrupted, kept = original.clone(), torch.ones_like(original[:, :1])
        for _ in range(self.patches):
            patch = _place(original, self.sides, generator)
            x1 = patch.cut(corrupted)  # (N, 3, S, S)
            x2 = shape_mask(patch, generator)  # (N, 1, S, S)
            x3 = self._replaced(corrupted, x1, patch, generator)
            patch.put(corrupted, glue(x1, x2, x3))
            patch.put(kept, patch.cut(kept) * (1 - x2))
        return Pair(original, corrupted, 1 - kept)

    def _replaced(self, pictures: Tensor, x1: Tensor, patch: Patch, generator: torch.Generator) -> Tensor:
        """X3 (N, 3, S, S)."""
        x3 = _KINDS[self.kind](self, pictures, x1, patch, generator)
        if not self.brightness:
            return x3
        change = self.brightness * (2 * torch.rand(len(x3), 1, 1, 1, generator=generator) - 1)
        return (x3 + change.to(x3.device)).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch per picture: the window it is worked on in, and where in the window it lies.

    `rows` and `columns` (N, S) are the window's pixels in the picture, `v` and `u` (N, S) their coordinates.
    """

    rows: Tensor
    columns: Tensor
    v: Tensor
    u: Tensor

    def cut(self, pictures: Tensor) -> Tensor:
        """(N, C, H, W) -> the windows (N, C, S, S)."""
        return pictures[self._index(pictures)]

    def put(self, pictures: Tensor, windows: Tensor) -> None:
        """Write windows (N, C, S, S) back in place."""
        pictures[self._index(pictures)] = windows

    def _index(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, channels = (torch.arange(count, device=pictures.device) for count in pictures.shape[:2])
        return n[:, None, None, None], channels[:, None, None], self.rows[:, None, :, None], self.columns[:, None, None]


def glue(x1: Tensor, x2: Tensor, x3: Tensor) -> Tensor:
    """X4 of Figure 4."""
    return x2 * x3 + (1 - x2) * x1


def shape_mask(patch: Patch, generator: torch.Generator) -> Tensor:
    """X2: a smooth shape (N, 1, S, S) in [0, 1], ragged by noise, zero on the patch's border and beyond."""
    hill = (1 - patch.v.square()).clamp_min(0)[:, :, None] * (1 - patch.u.square()).clamp_min(0)[:, None]  # (N, S, S)
    ragged = _RAGGED * smooth_noise(1, patch, generator).clamp_max(1)  # beyond that the border would show
    level = hill[:, None] * torch.exp(ragged)
    low, high = _EDGES
    t = ((level - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def smooth_noise(channels: int, patch: Patch, generator: torch.Generator) -> Tensor:
    """(N, channels, S, S) random fields of variance about 1 that vary smoothly over the patch."""
    noise = torch.randn(len(patch.u), channels, _KNOTS, _KNOTS, generator=generator).to(patch.u.device)
    size = patch.u.shape[1]
    at = torch.stack([patch.u[:, None].expand(-1, size, -1), patch.v[:, :, None].expand(-1, -1, size)], dim=-1)
    return F.grid_sample(noise, at, mode="bicubic", padding_mode="border", align_corners=True)


def _place(pictures: Tensor, sides: tuple[float, float], generator: torch.Generator) -> Patch:
    """A patch of random size anywhere within each picture."""
    extent = torch.tensor(pictures.shape[-2:], dtype=torch.float32)
    share = sides[0] + (sides[1] - sides[0]) * torch.rand(len(pictures), 2, generator=generator)
    side = (share * extent).round().clamp_min(4)  # (N, 2) height and width, px
    corner = (torch.rand(len(pictures), 2, generator=generator) * (extent - side + 1)).floor()
    window = int(side.max())
    first = torch.minimum(corner, extent - window).clamp_min(0)
    pixels = first[:, :, None] + torch.arange(window)  # (N, 2, S)
    uv = (2 * (pixels - corner[:, :, None]) + 1) / side[:, :, None] - 1
    pixels, uv = pixels.long().to(pictures.device), uv.to(pictures.device)
    return Patch(pixels[:, 0], pixels[:, 1], uv[:, 0], uv[:, 1])


def _elastic(how: Corruption, pictures: Tensor, x1: Tensor, patch: Patch, generator: torch.Generator) -> Tensor:
    """X1 sampled at displaced positions; displacements are smooth and Gaussian."""
    size = x1.shape[-1]
    amplitude = how.strength * torch.rand(len(x1), 1, 1, 1, generator=generator).to(x1.device)
    # a side is 2 in (u, v) and so many windows' halves in the window's own coordinates
    step = torch.stack([1 / (patch.u[:, 1] - patch.u[:, 0]), 1 / (patch.v[:, 1] - patch.v[:, 0])], dim=1) * 4 / size
    shift = amplitude * smooth_noise(2, patch, generator) * step[:, :, None, None]  # (N, 2, S, S)
    identity = torch.eye(2, 3, device=x1.device).expand(len(x1), 2, 3)
    at = F.affine_grid(identity, list(x1.shape), align_corners=False) + shift.permute(0, 2, 3, 1)
    return F.grid_sample(x1, at, mode="bilinear", padding_mode="reflection", align_corners=False)


def _cut_out(how: Corruption, pictures: Tensor, x1: Tensor, patch: Patch, generator: torch.Generator) -> Tensor:
    """Nothing."""
    return torch.zeros_like(x1)


def _swap(how: Corruption, pictures: Tensor, x1: Tensor, patch: Patch, generator: torch.Generator) -> Tensor:
    """What is elsewhere in the same picture."""
    size = x1.shape[-1]
    room = torch.tensor(pictures.shape[-2:]) - size + 1
    first = (torch.rand(len(x1), 2, generator=generator) * room).long()
    pixels = (first[:, :, None] + torch.arange(size)).to(x1.device)
    return Patch(pixels[:, 0], pixels[:, 1], patch.v, patch.u).cut(pictures)


_KINDS: dict[Kind, Callable[[Corruption, Tensor, Tensor, Patch, torch.Generator], Tensor]] = {
    "elastic": _elastic,
    "cut-out": _cut_out,
    "swap": _swap,
}
