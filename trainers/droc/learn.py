"""Stage one: f and g learn a pretext task by stochastic gradient descent, pass after pass over random patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from trainers.dataset.resized import Resized
from trainers.droc.pictures import random_patches
from trainers.droc.pretext import Representation, pretext_loss
from trainers.droc.settings import Settings
from trainers.droc.uniformity import mmd
from trainers.width import device

_EPOCH_SEEDS = 100_003  # more than any training's epochs
_COMPARED = 512  # patches that the uniformity is measured on
_SAID = 10  # times in a training


class DrocLearner:
    """f and g with their optimiser. What a pass draws at random depends on the seed and the pass's number alone.

    After each pass the uniformity of the same unaltered patches' embeddings is noted, and said now and then.
    """

    def __init__(self, model: Representation, settings: Settings, seed: int, say: Callable[[str], None]) -> None:
        self.device = device()
        self.model = model
        self.model.to(self.device)
        self.settings, self.seed, self.say = settings, seed, say
        self.optimiser = torch.optim.SGD(
            model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.uniformity: list[float] = []

    @property
    def epochs(self) -> int:
        """See `passes.Learner.epochs`."""
        return self.settings.epochs

    def work(self, pictures: Resized, number: int) -> int:
        """Of a pass, in patches."""
        return sum(len(rows) for rows in self._steps(pictures, number, torch.Generator()))

    def epoch(self, pictures: Resized, number: int) -> Iterator[tuple[int, float]]:
        """One pass in random order: yields (patches taken in, loss) after each step."""
        generator = torch.Generator().manual_seed(_EPOCH_SEEDS * self.seed + number)
        steps = self._steps(pictures, number, generator)
        self.model.to(self.device).train()
        for i, rows in enumerate(steps):
            self._set_rate((number + i / len(steps)) / self.epochs)
            x = random_patches(pictures, rows, self.settings.patch_px, generator)
            yield len(rows), self._step(x.to(self.device), generator)
        self._compare(pictures, number)

    def finish(self) -> Representation:
        """The trained f and g, on the CPU."""
        return self.model.cpu().eval()

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "uniformity": self.uniformity,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.uniformity = state["uniformity"]

    def _steps(self, pictures: Resized, number: int, generator: torch.Generator) -> list[Tensor]:
        """The pictures of each step. All steps are of one size, since the contrastive loss depends on it."""
        count = len(pictures) * self.settings.seen
        order = torch.randperm(count, generator=generator) % len(pictures)
        size = min(self.settings.batch, count)
        return list(torch.split(order, size))[: count // size]

    def _step(self, x: Tensor, generator: torch.Generator) -> float:
        self.optimiser.zero_grad()
        loss = pretext_loss(self.model, x, self.settings, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def _compare(self, pictures: Resized, number: int) -> None:
        """Note how uniform the embeddings of some patches are, always the same ones."""
        generator = torch.Generator().manual_seed(_EPOCH_SEEDS * self.seed)
        rows = torch.randint(len(pictures), (_COMPARED,), generator=generator)
        x = random_patches(pictures, rows, self.settings.patch_px, generator).to(self.device)
        self.model.eval()
        with torch.no_grad():
            self.uniformity.append(mmd(self.model(x)))
        if (number + 1) % max(1, self.epochs // _SAID) == 0:
            self.say(f"epoch {number + 1}/{self.epochs}: MMD of embeddings to uniform {self.uniformity[-1]:.4f}")

    def _set_rate(self, share: float) -> None:
        """One cosine cycle: from the full rate at share 0 of the training to 0 at share 1."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * (1 + math.cos(math.pi * share)) / 2
