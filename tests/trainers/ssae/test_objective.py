"""Equations 1 and 2 against float64 NumPy written from the paper, and where their gradients push."""

import numpy as np
import pytest
import torch

from trainers.ssae.objective import Pair, loss


def case(seed=0, n=3, side=6):
    random = np.random.default_rng(seed)
    output, x, x_hat = random.random((3, n, 3, side, side))
    mask = np.clip(random.normal(0.3, 0.5, (n, 1, side, side)), 0, 1)
    return output, x, x_hat, mask


def tensors(*arrays):
    return [torch.tensor(a, dtype=torch.float32) for a in arrays]


def norm(a):
    return np.sqrt((a**2).sum())


def equation_1(f, x, x_hat, m, lam):
    """Of one picture; every array has its three colours."""
    complement = 1 - m
    outside = lam / complement.sum() * norm(complement * (f - x))
    return outside + (1 - lam) / m.sum() * norm(m * (f - x))


def equation_2(f, x, x_hat, m, lam):
    complement, real_valued = 1 - m, np.abs(x_hat - x)
    outside = lam / complement.sum() * norm(complement * (f - x))
    return outside - (1 - lam) / real_valued.sum() * norm(real_valued * (f - x))


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("number", "equation"), [(1, equation_1), (2, equation_2)])
def test_the_loss_is_the_papers(number, equation, lam):
    f, x, x_hat, mask = case()
    want = np.mean([equation(*(a[i] for a in (f, x, x_hat)), np.repeat(mask[i], 3, 0), lam) for i in range(3)])
    output, *pair = tensors(f, x, x_hat, mask)
    assert float(loss(number, output, Pair(*pair), lam)) == pytest.approx(want, rel=1e-5)


def gradient(number, output, pair, lam=0.5):
    output = output.clone().requires_grad_()
    loss(number, output, pair, lam).backward()
    return output.grad


def test_objective_1_pulls_everything_to_the_original():
    output, *pair = tensors(*case())
    step = -gradient(1, output, Pair(*pair))
    towards = pair[0] - output
    assert (step * towards >= 0).all()
    assert (step != 0).float().mean() > 0.99


def test_objective_2_pushes_away_exactly_where_pixels_were_changed():
    """Inside the mask but unchanged: no push, which is what the real-valued mask is for."""
    f, x, x_hat, _ = case()
    mask = np.zeros((3, 1, 6, 6))
    mask[:, :, 2:5, 2:5] = 1
    x_hat = np.where(mask > 0, x_hat, x)
    x_hat[:, :, 2] = x[:, :, 2]  # one row of the masked square is as it was
    output, *pair = tensors(f, x, x_hat, mask)
    push = gradient(2, output, Pair(*pair)) * (output - pair[0])  # negative: a step increases the error
    assert (push[:, :, 3:5, 2:5] < 0).all()
    assert (push[:, :, 2, 2:5] == 0).all()
    assert (push[:, :, :2] > 0).all()


@pytest.mark.parametrize("number", [1, 2])
def test_the_gradient_of_the_output_is_the_papers(number):
    """In float64: each norm's derivative, W the same constant whatever F gives: W^2 (F - X) / (|W (F - X)| |W|_1)."""
    f, x, x_hat, mask = case()
    inside = np.repeat(mask, 3, 1) if number == 1 else np.abs(x_hat - x)
    want = np.zeros_like(f)
    for weights, share in ((np.repeat(1 - mask, 3, 1), 0.3), (inside, 0.7 if number == 1 else -0.7)):
        for i in range(3):
            w, error = weights[i], (f - x)[i]
            want[i] += share / 3 * w**2 * error / (norm(w * error) * w.sum())
    output, *pair = tensors(f, x, x_hat, mask)
    got = gradient(number, output, Pair(*pair), 0.3).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("number", [1, 2])
def test_a_perfect_output_and_an_unchanged_picture_have_finite_gradients(number):
    _, x, _, mask = tensors(*case())
    for output in (x, x * 0.5):
        assert torch.isfinite(gradient(number, output, Pair(x, x, mask))).all()
        assert torch.isfinite(gradient(number, output, Pair(x, x, torch.zeros_like(mask)))).all()
