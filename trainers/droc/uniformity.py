"""How far embeddings are from uniform on the sphere: MMD (Figures 4a and 8). Small is uniform.

With the kernel k(x, y) = exp(-gamma |x - y|^2) of Gretton et al. 2012, the mean of k(x, u) over uniform u is the same
number c for every x on the sphere, so no uniform sample is needed: MMD^2 = E k(x, x') - 2 c + c. Letters: n embeddings
of d numbers.
"""

from __future__ import annotations

import math

import torch
from scipy import special
from torch import Tensor
from torch.nn import functional as F

GAMMA = 2.0  # not in the paper; that of the uniformity of Wang and Isola 2020


def mmd(embedded: Tensor) -> float:
    """The unbiased estimate of MMD^2 from (n, d) of any norm; it may be a hair below zero."""
    x = F.normalize(embedded.double(), dim=1)
    n, d = x.shape
    kernel = torch.exp(2 * GAMMA * (x @ x.T - 1))
    pairs = (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))
    return float(pairs) - uniform_kernel_mean(d)


def uniform_kernel_mean(d: int) -> float:
    """c = E exp(-gamma |x - u|^2), u uniform on the sphere in d dimensions.

    E exp(kappa x.u) = Gamma(d/2) (2 / kappa)^(d/2 - 1) I_(d/2 - 1)(kappa) with kappa = 2 gamma: the normaliser of the
    von Mises-Fisher law (Mardia and Jupp 2000, 9.3.4). All but the exponential is 0F1, which stays in range.
    """
    kappa, nu = 2 * GAMMA, d / 2 - 1
    return float(special.hyp0f1(nu + 1, kappa**2 / 4)) * math.exp(-kappa)
