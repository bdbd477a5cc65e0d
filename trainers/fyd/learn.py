"""The joint loss (equation 5) by SGD with one cosine cycle, resumable after every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trainers.dataset.resized import Resized
from trainers.fyd.model import Network
from trainers.fyd.noncontrastive import NonContrastive, partners
from trainers.fyd.settings import Settings
from trainers.learning import passes
from trainers.learning.checkpoint import Checkpoint
from trainers.progress import Progress


class Learner:
    """The network with the heads of the non-contrastive loss, an optimiser and a seeded order of pictures.

    The backbone's batch norms keep their ImageNet statistics; those of the heads, which are not exported, train.
    """

    def __init__(self, network: Network, settings: Settings, seed: int) -> None:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.6 times as fast on a CPU
        self.network = network.eval()
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        with passes.seeded(seed):
            heads = NonContrastive(network.backbone.channels[-1]) if settings.non_contrastive else None
        self.heads = heads
        self._ica = [] if network.ica is None else list(network.ica.parameters())
        others = [*network.backbone.parameters(), *network.fca.parameters()]
        others += [] if heads is None else list(heads.parameters())
        self.rates = (settings.lr_ica, settings.lr_others)
        groups = [{"params": self._ica}, {"params": others}]
        self.optimiser = torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)

    @property
    def epochs(self) -> int:
        """See `passes.Learner.epochs`."""
        return self.settings.epochs

    def work(self, pictures: Resized, number: int) -> int:
        """Pictures of a pass."""
        return len(pictures)

    def epoch(self, pictures: Resized, number: int) -> Iterator[tuple[int, float]]:
        """One pass in random order: yields (pictures taken in, loss) after each step."""
        order = torch.randperm(len(pictures), generator=self.generator)
        steps = torch.split(order, self.settings.batch_size)
        for i, rows in enumerate(steps):
            if len(rows) > 1:  # a picture needs a partner
                self._set_rates((number + i / len(steps)) / self.settings.epochs)
                yield len(rows), self._step(torch.from_numpy(pictures.take(rows.numpy())))

    def loss(self, images: Tensor) -> Tensor:
        """Equation 5 for images (N, H, W, 3) uint8, each paired at random with another.

        The gradient of L_FAS reaches everything, through the warps the ICA too; that of L_ICA the ICA alone.
        """
        pictures = self.network.normalised(images)
        partner = partners(len(images), self.generator)
        total = torch.zeros(())
        if self.network.ica is not None:
            total = total + self.settings.lambda_ica * self.network.ica.loss(pictures, partner)
        if self.heads is not None:
            levels, _ = self.network.levels(pictures)
            total = total + self.settings.lambda_fas * self.heads(levels[-1], partner)
        return total

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "network": self.network.state_dict(),
            "heads": None if self.heads is None else self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        if self.heads is not None:
            self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])

    def _set_rates(self, share: float) -> None:
        """One cosine cycle: from the full rates at share 0 of the training to 0 at share 1."""
        factor = (1 + math.cos(math.pi * share)) / 2
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _step(self, images: Tensor) -> float:
        self.optimiser.zero_grad()
        loss = self.loss(images)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._ica:
            torch.nn.utils.clip_grad_norm_(self._ica, self.settings.ica_gradient_norm)
        self.optimiser.step()
        return float(loss.detach())


def learn(network: Network, pictures: Resized, seed: int, checkpoint: Checkpoint, progress: Progress) -> float:
    """Train the learnt parts of a network in place; returns the mean loss of the last epoch."""
    return passes.learn(Learner(network, network.settings, seed), pictures, checkpoint, progress)
