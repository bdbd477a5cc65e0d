"""The terms of the M-step, equations (7) to (12), for each picture of a batch.

x is a picture (N, 3, H, W) in [0, 1], x^ its reconstruction, z = f(x) its representation (N, Z), d the critic, g the
decoder; the latent variables are omega(1) = mu (Z,) and omega(2) = sigma. Sums over the lattice Omega are means here,
so that the weights do not depend on the picture's size.

Which parameters a term trains: (8) and (11) those of f and g, (10) those of d. So (11) is given a critic whose
parameters are held, and (10) pictures without a history.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.igd.msssim import MsSsim

MAX_ALPHA = 0.5  # alpha ~ U(0, 0.5): beyond it, x_1 and x_2 would change places


def gaussian_loss(z: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """(8): l_h = 1 - p(y = 0 | omega, x) = 1 - exp(-|z - mu|^2 / sigma^2), (N,)."""
    return 1 - torch.exp(-(z - mu).square().sum(dim=1) / sigma.square())


def structural_loss(x: Tensor, x_hat: Tensor, levels: list[Tensor], similarity: MsSsim, rho: float) -> Tensor:
    """(12): l_r = rho |x - x^| + (1 - rho) (1 - m(x, x^)), (N,); `levels` are `similarity(x, x_hat)`."""
    absolute = (x - x_hat).abs().mean(dim=(1, 2, 3))
    return rho * absolute + (1 - rho) * (1 - similarity.score(levels))


def structural_map(x: Tensor, x_hat: Tensor, levels: list[Tensor], similarity: MsSsim, rho: float) -> Tensor:
    """(17): the same at every place, (N, H, W)."""
    absolute = (x - x_hat).abs().mean(dim=1)
    return rho * absolute + (1 - rho) * (1 - similarity.at_every_place(levels))


def squared_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """The squared error at every place (N, H, W): what Table 5's first row trains and scores by instead of (12)."""
    return (x - x_hat).square().mean(dim=1)


def interpolated(z: Tensor, alpha: Tensor) -> Tensor:
    """Of (9): alpha z_1 + (1 - alpha) z_2, (N, Z), z_2 being the next picture's of the batch, so that x_1 != x_2."""
    share = alpha[:, None]
    return share * z + (1 - share) * z.roll(1, dims=0)


def blended(x: Tensor, x_hat: Tensor, zeta: Tensor) -> Tensor:
    """Of (10): x^_zeta = zeta x + (1 - zeta) x^, (N, 3, H, W)."""
    share = zeta[:, None, None, None]
    return share * x + (1 - share) * x_hat


def critic_loss(of_interpolated: Tensor, alpha: Tensor, of_blended: Tensor) -> Tensor:
    """(10): l_d = (d(x^_alpha) - alpha)^2 + d(x^_zeta)^2, (N,)."""
    return (of_interpolated - alpha).square() + of_blended.square()


def fooling_loss(of_interpolated: Tensor) -> Tensor:
    """The regulariser of (11) before its weight lambda_3: d(x^_alpha)^2, (N,)."""
    return of_interpolated.square()
