"""The projection head g: a perceptron on f that the pretext tasks learn through and detection does without."""

from __future__ import annotations

from torch import Tensor, nn

HIDDEN = 512
ROTATIONS = 4


class Head(nn.Module):
    """`layers` times (linear, batch norm, ReLU), then one linear layer to the embedding: (N, D) -> (N, out)."""

    def __init__(self, features: int, layers: int, hidden: int, out: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for i in range(layers):
            modules += [nn.Linear(hidden if i else features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
        self.layers = nn.Sequential(*modules, nn.Linear(hidden if layers else features, out))

    def forward(self, f: Tensor) -> Tensor:
        embedding: Tensor = self.layers(f)
        return embedding


class RotationHead(Head):
    """One that also says which of four rotations it takes its input to be turned by."""

    def __init__(self, features: int, layers: int, hidden: int, out: int) -> None:
        super().__init__(features, layers, hidden, out)
        self.rotations = nn.Linear(out, ROTATIONS)

    def logits(self, f: Tensor) -> Tensor:
        """(N, D) -> (N, 4)."""
        out: Tensor = self.rotations(self(f))
        return out
