"""Dense non-contrastive learning, equations 3 and 4 and Algorithm 1.

Every position of one picture's features predicts the same position of another picture's, with the gradient stopped at
the target. Equation 3 divides by the norm of m, Algorithm 1 by that of the prediction g(m); the algorithm is followed.
Width and batch norms are not in the paper: 256 as in its closest published relative, the norms as in SimSiam.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 256


class NonContrastive(nn.Module):
    """Encoder f of three 1x1 convolutions and predictor g of two, over the last level's features (N, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *_layer(channels, WIDTH),
            *_layer(WIDTH, WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
        )
        self.predictor = nn.Sequential(*_layer(WIDTH, WIDTH), nn.Conv2d(WIDTH, WIDTH, 1))

    def forward(self, features: Tensor, partner: Tensor) -> Tensor:
        """The loss of features (N, C, h, w), each picture against its `partner` (N,).

        The second view is the same batch in another order, so f and g run once and their outputs are reordered.
        """
        z = self.encoder(features)  # (N, WIDTH, h, w)
        p = self.predictor(z)  # (N, WIDTH, h, w)
        return (negative_cosine(p, z[partner]) + negative_cosine(p[partner], z)) / 2


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine over channels at every position of (N, C, h, w); no gradient reaches the target."""
    return -F.cosine_similarity(prediction, target.detach(), dim=1).mean()


def partners(n: int, generator: torch.Generator) -> Tensor:
    """(n,) a random pairing of a batch in which no picture is its own partner, for n >= 2."""
    order = torch.randperm(n, generator=generator)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def _layer(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
