"""The trunk before the M-steps: distilled from an ImageNet backbone, or taught by itself; fixed afterwards.

Distillation (Bergmann et al. 2020) makes the trunk's features those of the backbone; self-supervision (SimCLR, Chen et
al. 2020) makes those of two views of a picture alike and of different pictures unlike. Both learn from the training
pictures, for there are no others here. Letters: n pictures of a batch, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.dataset.resized import Resized
from trainers.igd.encoder import Trunk, standard_of
from trainers.igd.pictures import unit
from trainers.igd.views import view
from trainers.width import device

TEMPERATURE = 0.5  # not in the paper; SimCLR's for small pictures
HEAD = 128  # the contrastive head's outputs
_EPOCH_SEEDS = 100_003  # more than any training's epochs


class Task(Protocol):
    """What a trunk is taught by; `learning` are the modules that learn, `batch` the pictures of a step."""

    batch: int
    learning: nn.Module
    optimiser: torch.optim.Optimizer

    def loss(self, x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Of pictures (n, 3, side, side) in [0, 1] with the numbers `rows`."""


class Distillation:
    """The l2 norm between the features of the trunk and those of a backbone, `taught` (K, F) for all pictures.

    Both with mean 0 and variance 1, as the descriptor takes them. The paper's are compared as they are, but both of its
    networks end in a ReLU; half of EfficientNet's features are negative, which the trunk's cannot be. Adam's rate is
    that of the M-steps, ten times the paper's, for a small share of its steps.
    """

    batch = 64

    def __init__(self, trunk: Trunk, taught: Tensor) -> None:
        self.learning: nn.Module = nn.Sequential(trunk, nn.BatchNorm1d(trunk.features, affine=False))
        self.taught = standard_of(taught)(taught)
        self.optimiser: torch.optim.Optimizer = torch.optim.Adam(trunk.parameters(), lr=1e-3, weight_decay=1e-5)

    def loss(self, x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """See `Task.loss`."""
        distance: Tensor = torch.linalg.vector_norm(self.learning(x) - self.taught[rows].to(x.device), dim=1)
        return distance.mean()


class Contrast:
    """NT-Xent through a head of two layers, which is thrown away afterwards.

    SGD with the paper's rate and decay. Norms and biases do not decay, as in SimCLR, and there is no momentum, of which
    the paper says nothing: with it and everything decayed, all patches had the same features after 700 steps.
    """

    batch = 32

    def __init__(self, trunk: Trunk) -> None:
        features = trunk.features
        self.trunk = trunk
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, HEAD))
        self.learning: nn.Module = nn.ModuleList([trunk, self.head])
        parameters = list(self.learning.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.1},
            {"params": [each for each in parameters if each.ndim == 1]},
        ]
        self.optimiser: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.01)

    def loss(self, x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """See `Task.loss`."""
        views = torch.cat([view(x, generator), view(x, generator)])
        return nt_xent(self.head(self.trunk(views)))


def nt_xent(projected: Tensor) -> Tensor:
    """Of (2 n, D): row i and row i + n are two views of one picture, to be told from the 2 n - 2 other rows."""
    unit_rows = F.normalize(projected, dim=1)
    n = len(projected) // 2
    cosine = unit_rows @ unit_rows.T / TEMPERATURE
    itself = torch.eye(2 * n, dtype=torch.bool, device=projected.device)
    other_view = torch.arange(2 * n, device=projected.device).roll(n)
    return F.cross_entropy(cosine.masked_fill(itself, -torch.inf), other_view)


class PretrainingLearner:
    """A task learnt in passes; what a pass draws at random depends on the seed and the pass's number alone."""

    def __init__(self, task: Task, epochs: int, seed: int) -> None:
        self.task, self.epochs, self.seed = task, epochs, seed
        self.device = device()
        task.learning.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def work(self, pictures: Resized, number: int) -> int:
        """Of a pass, in pictures."""
        return len(pictures)

    def epoch(self, pictures: Resized, number: int) -> Iterator[tuple[int, float]]:
        """One pass in random order: yields (pictures taken in, loss) after each step."""
        generator = torch.Generator().manual_seed(_EPOCH_SEEDS * self.seed + number)
        self.task.learning.train()
        for rows in torch.split(torch.randperm(len(pictures), generator=generator), self.task.batch):
            if len(rows) > 1:  # batch norms and contrast need two
                yield len(rows), self._step(unit(pictures, rows).to(self.device), rows, generator)
        self.task.learning.eval()

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {"learning": self.task.learning.state_dict(), "optimiser": self.task.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.task.learning.load_state_dict(state["learning"])
        self.task.optimiser.load_state_dict(state["optimiser"])
        self.task.learning.eval()

    def _step(self, x: Tensor, rows: Tensor, generator: torch.Generator) -> float:
        self.task.optimiser.zero_grad()
        loss = self.task.loss(x, rows, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        self.task.optimiser.step()
        return float(loss.detach())
