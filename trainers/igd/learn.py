"""Expectation maximisation of one IGD model: E-steps on a schedule, M-steps by Adam against a critic.

Letters: n pictures of a batch, F features, Z representation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from trainers.dataset.resized import Resized
from trainers.igd.decoder import Critic
from trainers.igd.encoder import Trunk
from trainers.igd.latent import e_step
from trainers.igd.losses import MAX_ALPHA, blended, critic_loss, fooling_loss, interpolated
from trainers.igd.model import Descriptor
from trainers.igd.pictures import unit
from trainers.igd.settings import Settings
from trainers.width import device

_EPOCH_SEEDS = 100_003  # more than any training's epochs
_BATCH = 64  # of passes without gradient


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a model learns, from how many pictures a step, and before which epochs the E-step comes."""

    epochs: int
    batch: int
    e_step_every: int


class DescriptorLearner:
    """Two optimisers: of psi and phi (encoder and decoder) by (8) and (11), of eta (the critic) by (10).

    `features` (K, F) are the trunk's for all pictures, where it is fixed; else None, and the trunk learns too. What a
    pass draws at random depends on the seed and the pass's number alone.
    """

    def __init__(
        self, model: Descriptor, critic: Critic, features: Tensor | None, settings: Settings, plan: Plan, seed: int
    ) -> None:
        self.model, self.critic, self.features = model, critic, features
        self.settings, self.plan, self.seed = settings, plan, seed
        if features is not None:
            model.fix_trunk(features)
        self.device = device()
        trunk = [model.trunk, model.standard] if features is None else []
        self.learning = nn.ModuleList([*trunk, model.project, model.decoder])
        for part in (model, critic):
            part.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = _adam(self.learning, settings)
        self.critic_optimiser = _adam(critic, settings)

    @property
    def epochs(self) -> int:
        """See `passes.Learner.epochs`."""
        return self.plan.epochs

    def work(self, pictures: Resized, number: int) -> int:
        """Of a pass, in pictures."""
        return len(pictures)

    def epoch(self, pictures: Resized, number: int) -> Iterator[tuple[int, float]]:
        """One pass in random order, after an E-step where one is due: yields (pictures taken in, loss)."""
        if number == 0 and self.features is None:
            self._settle(pictures)
        if number % self.plan.e_step_every == 0:
            self.model.set_latent(e_step(self.representations(pictures)))
        generator = torch.Generator().manual_seed(_EPOCH_SEEDS * self.seed + number)
        steps = torch.split(torch.randperm(len(pictures), generator=generator), self.plan.batch)
        self.learning.train()
        for i, rows in enumerate(steps):
            if len(rows) > 1:  # z_2 is another picture's
                self._set_rate((number + i / len(steps)) / self.plan.epochs)
                yield len(rows), self._step(unit(pictures, rows).to(self.device), rows, generator)

    def representations(self, pictures: Resized) -> Tensor:
        """f of all pictures as it is now, (K, Z), without gradient."""
        self.learning.eval()
        with torch.no_grad():
            parts = torch.split(torch.arange(len(pictures)), _BATCH)
            return torch.cat([self._encoded(unit(pictures, rows).to(self.device), rows) for rows in parts])

    def finish(self) -> Descriptor:
        """The trained model, on the CPU."""
        return self.model.cpu().eval()

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "learning": self.learning.state_dict(),
            "critic": self.critic.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
            "mu": self.model.mu,
            "sigma": self.model.sigma,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.learning.load_state_dict(state["learning"])
        self.critic.load_state_dict(state["critic"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.model.mu.copy_(state["mu"])
        self.model.sigma.copy_(state["sigma"])

    def m_step_loss(self, x: Tensor, x_hat: Tensor, z: Tensor, x_alpha: Tensor | None) -> Tensor:
        """(7) without (10): what psi and phi learn from. The critic is held, so that (11) fools it, not trains it."""
        loss = self.model.reconstruction_term(x, x_hat) + self.model.gaussian_term(z)
        if x_alpha is not None:
            self.critic.requires_grad_(False)
            loss = loss + self.settings.objective.lambda_3 * fooling_loss(self.critic(x_alpha))
            self.critic.requires_grad_(True)
        return loss.mean()

    def critic_step_loss(self, x: Tensor, x_hat: Tensor, x_alpha: Tensor, draws: Tensor) -> Tensor:
        """(10), of which eta alone learns; `draws` (2, n) are alpha and zeta."""
        alpha, zeta = draws
        judged = torch.cat([x_alpha.detach(), blended(x, x_hat.detach(), zeta)])
        of_interpolated, of_blended = self.critic(judged).chunk(2)
        return critic_loss(of_interpolated, alpha, of_blended).mean()

    def _settle(self, pictures: Resized) -> None:
        """Give the norms of a new trunk the pictures' statistics.

        With those that they begin with all representations are nearly the same, and sigma is so small that (8) is 1
        and has no gradient until the next E-step.
        """
        parts = torch.split(torch.arange(len(pictures)), _BATCH)
        encoder = nn.Sequential(self.model.trunk, self.model.standard, self.model.project)
        update_bn((unit(pictures, rows) for rows in parts if len(rows) > 1), encoder, self.device)

    def _step(self, x: Tensor, rows: Tensor, generator: torch.Generator) -> float:
        draws = torch.rand((2, len(rows)), generator=generator).to(self.device)
        draws[0] *= MAX_ALPHA
        z = self._encoded(x, rows)
        x_hat = self.model.decoder(z)
        x_alpha = self.model.decoder(interpolated(z, draws[0])) if self.settings.objective.interpolation else None
        loss = self.m_step_loss(x, x_hat, z, x_alpha)
        _descend(self.optimiser, loss)
        if x_alpha is not None:
            _descend(self.critic_optimiser, self.critic_step_loss(x, x_hat, x_alpha, draws))
        return float(loss.detach())

    def _encoded(self, x: Tensor, rows: Tensor) -> Tensor:
        features = self.model.trunk(x) if self.features is None else self.features[rows].to(self.device)
        return self.model.encode(features)

    def _set_rate(self, share: float) -> None:
        """Polynomial decay: from the full rate at share 0 of the training to 0 at share 1."""
        for optimiser in (self.optimiser, self.critic_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = self.settings.learning_rate * (1 - share) ** self.settings.decay_power


def trunk_features(trunk: Trunk, pictures: Resized) -> Tensor:
    """The features (K, F) of all pictures by a trunk that is fixed."""
    where = device()
    trunk.eval().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        parts = torch.split(torch.arange(len(pictures)), _BATCH)
        return torch.cat([trunk(unit(pictures, rows).to(where)).cpu() for rows in parts])


def _adam(module: nn.Module, settings: Settings) -> torch.optim.Adam:
    s = settings
    return torch.optim.Adam(module.parameters(), lr=s.learning_rate, betas=s.betas, weight_decay=s.weight_decay)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
