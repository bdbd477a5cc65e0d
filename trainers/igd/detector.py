"""The detector as it is served: both models in one network, fused as in equations (13) and (16)."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.dataset.pixels import in_unit_range
from trainers.igd.model import Descriptor
from trainers.igd.patches import cut, joined, patches_a_side


class Fused(nn.Module):
    """Pictures (N, side, side, 3) uint8 RGB -> the map l (N, side, side) of (16) and the score s (N,) of (13).

    Without a local model both are the global one's.
    """

    def __init__(self, whole: Descriptor, local: Descriptor | None, side_px: int) -> None:
        super().__init__()
        self.whole = whole
        self.local = local
        self.per_side = patches_a_side(side_px)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = in_unit_range(images)
        seen = self.whole(x)
        score, places = seen.reconstruction + seen.gaussian, seen.map  # (14), (17)
        if self.local is not None:
            near = self.local(cut(x))
            of_patches = (near.reconstruction + near.gaussian).reshape(-1, self.per_side**2)
            score = score + of_patches.amax(dim=1)  # (13), (15)
            places = places + joined(near.map, self.per_side)  # (16)
        return places, score
