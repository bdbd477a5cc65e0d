"""Training F by one of the two objectives: corrupted crops in, their originals out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized
from trainers.ssae.model import STRIDE, Autoencoder
from trainers.ssae.objective import Equation, loss
from trainers.ssae.separation import Separation
from trainers.ssae.settings import Settings
from trainers.ssae.views import crop, turn
from trainers.width import device

_UNIT_PX = 32 * 32  # of progress
_EPOCH_SEEDS = 100_003  # more than any training's epochs


class SsaeLearner:
    """F with its optimiser. What a pass draws at random depends on the seed and the pass's number alone.

    With a `separation` the training stops early, and `finish` goes back to the epoch that separated best. Only epochs
    of the last stage count, in which pictures are as large as in use: on smaller crops it would stop at random.
    """

    def __init__(
        self, network: Autoencoder, equation: Equation, settings: Settings, seed: int, separation: Separation | None
    ) -> None:
        self.device = device()
        self.network = network
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.equation = equation
        self.settings = settings
        self.seed = seed
        self.separation = separation
        self.optimiser = torch.optim.Adam(network.parameters(), lr=settings.rate)
        self._first_compared = settings.first_of_stage(len(settings.stages) - 1)
        self.separations: list[float] = []
        self.best: dict[str, Any] = {}

    @property
    def epochs(self) -> int:
        """See `passes.Learner.epochs`."""
        if not self.separations:
            return self.settings.epochs
        done = self._first_compared + len(self.separations)
        return done if done - self.best_epoch >= self.settings.patience else self.settings.epochs

    @property
    def best_epoch(self) -> int:
        """The one, from 1 on, that separated best so far."""
        return self._first_compared + 1 + int(np.argmax(self.separations))

    def work(self, pictures: Resized, number: int) -> int:
        """Of a pass, in units of so many pixels."""
        return len(pictures) * self._work_of_one(number)

    def epoch(self, pictures: Resized, number: int) -> Iterator[tuple[int, float]]:
        """One pass in random order: yields (work done, loss) after each step."""
        generator = torch.Generator().manual_seed(_EPOCH_SEEDS * self.seed + number)
        steps = torch.split(torch.randperm(len(pictures), generator=generator), self.settings.batch_size)
        self.network.train()
        for i, rows in enumerate(steps):
            self._set_rate((number + i / len(steps)) / self.settings.epochs)
            images = torch.from_numpy(pictures.take(rows.numpy())).to(self.device)
            yield len(rows) * self._work_of_one(number), self._step(images, number, generator)
        if self.separation is not None and number >= self._first_compared:
            self._compare(self.separation)

    def finish(self) -> Autoencoder:
        """The trained network, on the CPU."""
        if self.best:
            self.network.load_state_dict(self.best)
        self.network.cpu().eval()
        return self.network

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "separations": self.separations,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.separations, self.best = state["separations"], state["best"]

    def _step(self, images: Tensor, number: int, generator: torch.Generator) -> float:
        s = self.settings
        view = crop(in_unit_range(images), self.side_px(number), generator)
        pair = s.corruption(turn(view, rotations=s.rotations, flips=s.flips, generator=generator), generator)
        output = self.network(pair.corrupted.contiguous(memory_format=torch.channels_last))
        self.optimiser.zero_grad()
        value = loss(self.equation, output, pair, s.lam[self.equation - 1])
        value.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(value.detach())

    def _compare(self, separation: Separation) -> None:
        """Note how well this epoch separates, and its weights where none did better."""
        self.separations.append(separation(self.network))
        if self.separations[-1] == max(self.separations):
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    def side_px(self, number: int) -> int:
        """Side of the crops in a pass."""
        s = self.settings
        share = s.stages[number * len(s.stages) // s.epochs]
        return max(1, round(share * s.side_px / STRIDE)) * STRIDE

    def _work_of_one(self, number: int) -> int:
        return max(1, self.side_px(number) ** 2 // _UNIT_PX)

    def _set_rate(self, share: float) -> None:
        """One cosine cycle: from the full rate at share 0 of the training to 0 at share 1."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate * (1 + math.cos(math.pi * share)) / 2
