"""One IGD model: encoder, decoder and the latent variables. The global and the local model are both this.

Letters: N batch, F features, Z representation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.igd.decoder import LATENT, Decoder
from trainers.igd.encoder import Trunk, standard_of
from trainers.igd.latent import Latent
from trainers.igd.losses import gaussian_loss, squared_map, structural_loss, structural_map
from trainers.igd.msssim import MsSsim, for_side
from trainers.igd.settings import Objective


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of N pictures: the terms of (14) or (15), (N,) each, and the map of (17), (N, side, side)."""

    reconstruction: Tensor
    gaussian: Tensor
    map: Tensor


class Descriptor(nn.Module):
    """f, g and omega for square pictures of `side_px`.

    Between the trunk and the linear layer each feature is brought to mean 0 and variance 1, which the paper does not
    say: with an ImageNet network's raw features every step of Adam moves all representations at once, past sigma, where
    (8) has no gradient.
    """

    mu: Tensor
    sigma: Tensor

    def __init__(self, trunk: Trunk, side_px: int, width: float, objective: Objective) -> None:
        super().__init__()
        self.trunk = trunk
        self.standard = nn.BatchNorm1d(trunk.features, affine=False)
        self.project = nn.Linear(trunk.features, LATENT)
        self.decoder = Decoder(side_px, width)
        self.similarity = MsSsim(for_side(side_px), side_px)
        self.objective = objective
        self.register_buffer("mu", torch.zeros(LATENT))
        self.register_buffer("sigma", torch.ones(()))

    def set_latent(self, latent: Latent) -> None:
        """What the E-step found."""
        self.mu.copy_(latent.mu)
        self.sigma.copy_(latent.sigma)

    def fix_trunk(self, features: Tensor) -> None:
        """The trunk learns no more, and `features` (K, F) are its of all training pictures."""
        self.standard = standard_of(features)

    def encode(self, features: Tensor) -> Tensor:
        """The rest of f: (N, F) -> (N, Z)."""
        z: Tensor = self.project(self.standard(features))
        return z

    def forward(self, x: Tensor) -> Judgement:
        """Pictures (N, 3, side, side) in [0, 1]."""
        z = self.encode(self.trunk(x))
        x_hat = self.decoder(z)
        gaussian = self.gaussian_term(z)
        if not self.objective.structural:
            errors = squared_map(x, x_hat)
            return Judgement(errors.mean(dim=(1, 2)), gaussian, errors)
        levels = self.similarity(x, x_hat)
        terms = (x, x_hat, levels, self.similarity, self.objective.rho)
        return Judgement(structural_loss(*terms), gaussian, structural_map(*terms))

    def gaussian_term(self, z: Tensor) -> Tensor:
        """(8) of representations (N, Z), or nothing where it is switched off: (N,)."""
        if not self.objective.gaussian:
            return torch.zeros_like(z[:, 0])
        return gaussian_loss(z, self.mu, self.sigma)

    def reconstruction_term(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """(12), or the squared error that Table 5 begins with: (N,)."""
        if not self.objective.structural:
            return squared_map(x, x_hat).mean(dim=(1, 2))
        return structural_loss(x, x_hat, self.similarity(x, x_hat), self.similarity, self.objective.rho)
