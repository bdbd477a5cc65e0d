"""The paper's propositions on synthetic textures with the project's own corruptions: why repairing is projecting."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from trainers.ssae.corrupt import Corruption

SIDE, PAIRS = 32, 300


def textures(n, seed):
    """(n, 3, SIDE, SIDE) in [0, 1]: stationary (smoothed periodic noise), so all pixels have one distribution."""
    noise = np.random.default_rng(seed).normal(size=(n, 3, SIDE, SIDE))
    smooth = gaussian_filter(noise, (0, 0, 1.5, 1.5), mode="wrap")
    return np.clip(0.5 + 0.8 * smooth, 0, 1)


@pytest.fixture(scope="module")
def corrupted():
    """x, y, x^ and S as (PAIRS, 3 * SIDE * SIDE): S holds the pixels under the mask."""
    x, y = textures(PAIRS, 0), textures(PAIRS, 1)
    pair = Corruption(patches=1, sides=(0.2, 0.6))(
        torch.tensor(x, dtype=torch.float32), torch.Generator().manual_seed(2)
    )
    inside = (pair.mask > 0).expand_as(pair.original).numpy()
    return [a.reshape(PAIRS, -1) for a in (x, y, pair.corrupted.double().numpy(), inside)]


def square(a, where):
    return np.where(where, a, 0) ** 2 @ np.ones(a.shape[1])


def test_proposition_1(corrupted):
    """With x^_S in the ball around x_S that reaches to y_S: |x_S - y_S| <= |x_rest - y_rest| implies (3)."""
    x, y, x_hat, inside = corrupted
    assert np.abs(x_hat - x)[~inside].max() < 1e-7  # of float32
    in_ball = square(x_hat - x, inside) <= square(x - y, inside)
    premise = square(x - y, inside) <= square(x - y, ~inside)
    assert (in_ball & premise).mean() > 0.9  # elastic deformation stays near the picture: the case is the usual one
    nearer = square(x_hat - x, True) <= square(x_hat - y, True) + 1e-9
    assert nearer[in_ball & premise].all()


def test_the_premises_of_proposition_1_are_needed(corrupted):
    """Replace nearly everything by y, and y is nearer."""
    x, y, _, inside = corrupted
    x_hat = np.where(inside, x, y)
    assert (square(x_hat - x, True) > square(x_hat - y, True)).mean() > 0.9


def test_proposition_2(corrupted):
    """Equation 4: the expected difference is (|S| - |rest|) mu for any S, when pixels have one distribution."""
    x, y, _, _ = corrupted
    mu = ((x - y) ** 2).mean()
    for share in (0.1, 0.5, 0.8):
        inside = np.zeros((3, SIDE, SIDE), bool)
        inside[:, : round(share * SIDE)] = True
        inside = inside.ravel()
        difference = square(x - y, inside) - square(x - y, ~inside)
        want = (inside.sum() - (~inside).sum()) * mu
        error = 4 * difference.std() / np.sqrt(PAIRS)
        assert difference.mean() == pytest.approx(want, abs=error)
