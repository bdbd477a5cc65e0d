"""What is explained: the one number that decided about a picture, as something that can be asked of other pictures.

Where a network gives scores of its own that is the score. Where the score is the maximum of the smooth map, it is the
map's value at the place of that maximum: the same number for the picture itself, but one that stays at its place while
the picture is changed. The maximum would jump: a changed picture is odd somewhere else, and would explain that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.serving.base import RawBatch
from engine.types import F64, U8
from trainers.explain.rebuild import Rebuilt, Seen

Place = tuple[int, int]  # (x, y) of the map, px


@dataclass(frozen=True, slots=True)
class Question:
    """The deciding number, of the model as it is served and as it was rebuilt. `place` is None where it is the score.

    `width` is that of the calibrated scale of pictures, the measure of what counts as a difference.
    """

    served: Callable[[U8], RawBatch]
    rebuilt: Rebuilt
    place: Place | None
    width: float

    def ask(self, images: U8) -> F64:
        """(N, H, W, 3) uint8 RGB -> what the served model answers, (N,)."""
        seen = self.served(images)
        return seen.scores if self.place is None else seen.maps[:, self.place[1], self.place[0]].astype(np.float64)

    def differentiable(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) float32 RGB of 0..255 -> what the rebuilt one answers, (N,)."""
        seen: Seen = self.rebuilt(images)
        return seen.scores if self.place is None else seen.maps[:, self.place[1], self.place[0]]

    def answer(self, image: U8) -> float:
        """What the rebuilt model answers for one picture (H, W, 3)."""
        with torch.no_grad():
            return float(self.differentiable(as_batch(image))[0])


def as_batch(image: U8) -> Tensor:
    """(H, W, 3) uint8 -> (1, H, W, 3) float32 of the same values."""
    return torch.from_numpy(np.ascontiguousarray(image)[None]).float()
