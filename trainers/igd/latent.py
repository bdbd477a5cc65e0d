"""The E-step: the mean and standard deviation of the normal pictures' representations, equation (3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SIGMA_FLOOR = 1e-3  # where the representations coincide, equation (8) would divide by zero


@dataclass(frozen=True, slots=True)
class Latent:
    """omega: `mu` (Z,) is omega(1), `sigma` () is omega(2). Constants of the M-step."""

    mu: Tensor
    sigma: Tensor


def e_step(z: Tensor) -> Latent:
    """mu_x = E[f(x)] and sigma_x^2 = E[|f(x) - mu_x|^2] of all training pictures' representations (K, Z).

    Summed in float64: there may be many patches.
    """
    values = z.detach().double()
    mu = values.mean(dim=0)
    sigma = (values - mu).square().sum(dim=1).mean().sqrt().clamp_min(SIGMA_FLOOR)
    return Latent(mu.to(torch.float32), sigma.to(torch.float32))
