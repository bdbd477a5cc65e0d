"""The detector as it is served: every patch of a picture scored, the scores laid where the patches' centres are.

`Detector.score` is the differentiable score of a picture that explanations start from. Letters: N batch, D features,
p patches a side, c cells of the map a side.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.types import F32
from trainers.dataset.patches import per_side
from trainers.dataset.pixels import in_unit_range
from trainers.droc.classifiers import Classifier
from trainers.droc.head import ROTATIONS, RotationHead
from trainers.droc.network import Trunk


class Scored(nn.Module):
    """Two stages: the classifier's score of each patch's features."""

    def __init__(self, trunk: Trunk, classifier: Classifier) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, side, side) in [0, 1] -> (N, p, p)."""
        f = self.trunk.dense(x)  # (N, D, p, p)
        scores: Tensor = self.classifier(f.permute(0, 2, 3, 1).reshape(-1, self.trunk.features))
        return scores.reshape(-1, f.shape[2], f.shape[3])


class RotationSoftmax(nn.Module):
    """One stage, the baseline: how little the head is sure of the four rotations of each patch.

    The logarithm of the product of their probabilities, negated, as an average over the four.
    """

    def __init__(self, trunk: Trunk, head: RotationHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, side, side) in [0, 1] -> (N, p, p)."""
        terms = []
        for quarters in range(ROTATIONS):
            f = self.trunk.dense(_turned(x, quarters))  # (N, D, p, p)
            logits = self.head.logits(f.permute(0, 2, 3, 1).reshape(-1, self.trunk.features))
            sure = F.log_softmax(logits, dim=1)[:, quarters].reshape(-1, f.shape[2], f.shape[3])
            terms.append(_turned(sure, -quarters % ROTATIONS))
        return -torch.stack(terms).mean(dim=0)


class Detector(nn.Module):
    """Pictures (N, side, side, 3) uint8 RGB -> the map (N, c, c), c cells as wide as the step from patch to patch."""

    placing: Tensor

    def __init__(self, scorer: Scored | RotationSoftmax, side_px: int) -> None:
        super().__init__()
        self.scorer = scorer
        trunk = scorer.trunk
        weights = placing(side_px, trunk.patch_px, trunk.stride_px)
        self.register_buffer("placing", torch.from_numpy(weights), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.map(in_unit_range(images))

    def map(self, x: Tensor) -> Tensor:
        """(N, 3, side, side) in [0, 1] -> (N, c, c)."""
        places: Tensor = self.scorer(x)
        return self.placing @ places @ self.placing.T

    def score(self, x: Tensor) -> Tensor:
        """(N, 3, side, side) in [0, 1] -> (N,): that of the most anomalous patch."""
        places: Tensor = self.scorer(x)
        return places.amax(dim=(1, 2))


def placing(side_px: int, patch_px: int, stride_px: int) -> F32:
    """(c, p) linear interpolation from the patches' centres to the cells', clamped at the borders."""
    p = per_side(side_px, patch_px, stride_px)
    c = 1 if p == 1 else side_px // stride_px
    centre = (np.arange(c) + 0.5) * side_px / c
    position = np.clip((centre - patch_px / 2) / stride_px, 0, p - 1)
    distance = np.abs(position[:, None] - np.arange(p))
    weights: F32 = np.maximum(1 - distance, 0).astype(np.float32)
    return weights


def _turned(x: Tensor, quarters: int) -> Tensor:
    """By so many quarter turns along the last two axes; made of transposes and flips, which every runtime has."""
    return torch.rot90(x, quarters, (-2, -1))
