"""The losses of stage one: which rotation is it, and which of these is another view of it.

Letters: n pictures of a batch, m distributions, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.droc.head import HIDDEN, ROTATIONS, Head, RotationHead
from trainers.droc.network import Trunk
from trainers.droc.settings import Settings
from trainers.droc.views import mirrors, view, widened
from trainers.width import scaled

EMBEDDING = 128  # of contrastive heads


class Representation(nn.Module):
    """f and g. `forward` is g of f (L2-normalised nowhere): patches (N, 3, patch, patch) -> (N, out)."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, patches: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.trunk(patches))
        return embedding


def make_head(features: int, settings: Settings) -> Head:
    """The head of the settings' pretext task; its hidden layers are as wide as the network is."""
    hidden = scaled(HIDDEN, settings.channel_share)
    if settings.pretext == "rotation":
        return RotationHead(features, settings.layers, hidden, hidden)
    return Head(features, settings.layers, hidden, EMBEDDING)


def pretext_loss(model: Representation, x: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Of pictures (n, 3, side, side) in [0, 1]."""
    if isinstance(model.head, RotationHead):
        turned = turned_four_ways(view(x, generator, mirrored=True))
        with _mixed_precision(x.device):
            logits = model.head.logits(model.trunk(turned))
        return rotation_loss(logits.float())
    x = widened(x, settings.spread)
    free = not mirrors(settings.spread)
    views = torch.cat([view(x, generator, mirrored=free), view(x, generator, mirrored=free)])
    with _mixed_precision(x.device):
        embedded = model(views)
    return contrastive_loss(embedded.float(), settings.temperature)


def turned_four_ways(x: Tensor) -> Tensor:
    """(n, C, side, side) -> (4 n, C, side, side): all as they are, all turned by 90 degrees, and so on."""
    return torch.cat([torch.rot90(x, quarters, (2, 3)) for quarters in range(ROTATIONS)])


def rotation_loss(logits: Tensor) -> Tensor:
    """Cross entropy of `turned_four_ways` pictures' logits (4 n, 4)."""
    turns = torch.arange(ROTATIONS, device=logits.device).repeat_interleave(len(logits) // ROTATIONS)
    return F.cross_entropy(logits, turns)


def contrastive_loss(embedded: Tensor, temperature: float) -> Tensor:
    """Of (2 k, out): row i is to tell row k + i, its other view, from the other views of all k instances."""
    anchors, others = F.normalize(embedded, dim=1).chunk(2)
    instances = torch.arange(len(anchors), device=embedded.device)
    return F.cross_entropy(anchors @ others.T / temperature, instances)


def _mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the GPU computes it, for everything but the loss; nothing on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
