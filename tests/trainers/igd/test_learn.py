"""EM of one model: which parameters each loss reaches, when the E-step comes, that it repeats to the bit."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import pytorch_msssim
import torch
from torch import Tensor, nn

from trainers.dataset.resized import Resized
from trainers.igd.decoder import LATENT, Critic
from trainers.igd.encoder import ResidualTrunk
from trainers.igd.latent import Latent, e_step
from trainers.igd.learn import DescriptorLearner, Plan, trunk_features
from trainers.igd.model import Descriptor
from trainers.igd.msssim import LOCAL
from trainers.igd.pictures import unit
from trainers.igd.settings import Objective, Settings
from trainers.learning.passes import seeded

SIDE = 32
SETTINGS = Settings(side_px=SIDE, width="narrow")
PLAN = Plan(epochs=4, batch=6, e_step_every=2)


@pytest.fixture(scope="module")
def pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (14, SIDE, SIDE, 3), dtype=np.uint8)
    return Resized(pixels, np.arange(14))


def learner(pictures, fixed=True, objective=None, seed=0, kind=DescriptorLearner, side=SIDE):
    settings = replace(SETTINGS, objective=objective or Objective())
    with seeded(seed):
        trunk = ResidualTrunk(side, 0.1, 64)
        model = Descriptor(trunk, side, 0.1, settings.objective)
        critic = Critic(side, 0.1)
    features = trunk_features(trunk, pictures) if fixed else None
    return kind(model, critic, features, settings, PLAN, seed)


def reached(module: nn.Module):
    return [p.grad is not None and bool(p.grad.abs().max() > 0) for p in module.parameters()]


def batch(of, pictures):
    rows = torch.arange(6)
    of.learning.train()
    x = unit(pictures, rows)
    z = of._encoded(x, rows)
    return x, z, of.model.decoder(z), of.model.decoder(z.roll(1, 0))


def test_the_m_step_trains_encoder_and_decoder_and_not_the_critic(pictures):
    for fixed in (True, False):
        of = learner(pictures, fixed)
        x, z, x_hat, x_alpha = batch(of, pictures)
        of.m_step_loss(x, x_hat, z, x_alpha).backward()
        assert all(reached(of.model.project))
        assert all(reached(of.model.decoder))
        assert not any(reached(of.critic))
        assert any(reached(of.model.trunk)) == (not fixed)
        assert of.model.mu.grad is None
        assert of.model.sigma.grad is None


@pytest.mark.parametrize(
    ("term", "want"),
    [
        ("gaussian", {"project", "trunk"}),
        ("reconstruction", {"project", "trunk", "decoder"}),
        ("fooling", {"project", "trunk", "decoder"}),
    ],
)
def test_each_term_of_the_m_step_trains_its_own_parts(term, want, pictures):
    """(8) has no decoder in it; (12) and the second term of (11) pass through it to the encoder; none trains d."""
    of = learner(pictures, fixed=False)
    of.model.set_latent(Latent(torch.zeros(LATENT), torch.tensor(5.0)))
    x, z, x_hat, x_alpha = batch(of, pictures)
    still = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(z)
    given = {
        "gaussian": (*still[:2], z, None),
        "reconstruction": (x, x_hat, still[2], None),
        "fooling": (*still, x_alpha),
    }
    of.m_step_loss(*given[term]).backward()
    parts = {"project": of.model.project, "trunk": of.model.trunk, "decoder": of.model.decoder, "critic": of.critic}
    assert {name for name, part in parts.items() if any(reached(part))} == want


def test_the_m_step_s_loss_is_equation_7():
    """lambda_1 = lambda_2 = 1; l_d of (10) is the critic's and not in it. NumPy in float64 and pytorch-msssim."""
    of = learner(
        None, fixed=False, objective=Objective(rho=0.3, lambda_3=0.7), side=64
    )  # more than the library's least
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((6, 3, 64, 64), generator=generator)
    x_hat = 0.8 * x + 0.2 * torch.rand(x.shape, generator=generator)
    x_alpha = torch.rand(x.shape, generator=generator)
    z, mu = 0.2 * torch.randn((6, LATENT), generator=generator), torch.linspace(-0.1, 0.1, LATENT)
    of.model.set_latent(Latent(mu, torch.tensor(2.5)))
    with torch.no_grad():
        of.critic.layers[-1].bias.fill_(0.5)  # so that the untrained critic says something
        got = float(of.m_step_loss(x, x_hat, z, x_alpha))
        said = of.critic(x_alpha).double().numpy()
    l_h = 1 - np.exp(-((z - mu).double().numpy() ** 2).sum(axis=1) / 2.5**2)
    alike = pytorch_msssim.ms_ssim(x, x_hat, data_range=1, size_average=False, win_size=3, weights=list(LOCAL.weights))
    l_r = 0.3 * (x - x_hat).abs().double().numpy().mean(axis=(1, 2, 3)) + 0.7 * (1 - alike.double().numpy())
    l_fg = l_r + 0.7 * said**2
    assert got == pytest.approx((l_h + l_fg).mean(), rel=1e-4)
    assert min(l_h.mean(), l_r.mean(), 0.7 * (said**2).mean()) > 0.02  # each counts


@dataclass
class Step:
    """What the losses of one step were given, and the decoder as it was then."""

    m_step: tuple[Tensor, ...]
    decoder: nn.Module
    critic_step: tuple[Tensor, ...] = ()


class Noting(DescriptorLearner):
    """Keeps its steps."""

    def __init__(self, *given):
        super().__init__(*given)
        self.steps = []

    def m_step_loss(self, *given):
        noted = tuple(value.detach().clone() for value in given)
        self.steps.append(Step(noted, copy.deepcopy(self.model.decoder)))
        return super().m_step_loss(*given)

    def critic_step_loss(self, *given):
        self.steps[-1].critic_step = tuple(value.detach().clone() for value in given)
        return super().critic_step_loss(*given)


def test_a_step_decodes_its_own_and_mixed_representations(pictures):
    """(9): x^_alpha = g(alpha z_1 + (1 - alpha) z_2), z_2 another picture's; both losses get the same pictures."""
    of = learner(pictures, kind=Noting)
    list(of.epoch(pictures, 0))
    assert len(of.steps) == 3
    for step in of.steps:
        x, x_hat, z, x_alpha = step.m_step
        alpha = step.critic_step[3][0][:, None]
        with torch.no_grad():
            torch.testing.assert_close(x_hat, step.decoder(z))
            torch.testing.assert_close(x_alpha, step.decoder(alpha * z + (1 - alpha) * torch.cat([z[-1:], z[:-1]])))
        for ours, critics in zip((x, x_hat, x_alpha), step.critic_step, strict=False):
            assert torch.equal(ours, critics)


def test_alpha_is_less_than_a_half_and_zeta_anything(pictures):
    """alpha ~ U(0, 0.5) of (9) and zeta ~ U(0, 1) of (10), drawn apart."""
    of = learner(pictures, kind=Noting)
    for number in range(4):
        list(of.epoch(pictures, number))
    alpha, zeta = torch.cat([step.critic_step[3] for step in of.steps], dim=1).double().numpy()  # (56,) each
    for values, most in ((alpha, 0.5), (zeta, 1.0)):
        assert 0 <= values.min() < 0.1 * most
        assert 0.9 * most < values.max() < most
        assert values.mean() == pytest.approx(most / 2, abs=0.15 * most)
    assert abs(np.corrcoef(alpha, zeta)[0, 1]) < 0.3


def test_fooling_the_critic_reaches_the_decoder_through_it(pictures):
    """Equation (11) alone: its second term, at a weight that drowns the others."""
    of = learner(pictures)
    _, _, _, x_alpha = batch(of, pictures)
    x_alpha.retain_grad()
    with_it = of.m_step_loss(torch.zeros_like(x_alpha), torch.zeros_like(x_alpha), of.model.mu.expand(6, -1), x_alpha)
    with_it.backward()
    assert float(x_alpha.grad.abs().max()) > 0
    assert all(p.requires_grad for p in of.critic.parameters())  # held for that term only


def test_the_critic_alone_learns_from_its_loss(pictures):
    of = learner(pictures, fixed=False)
    x, _, x_hat, x_alpha = batch(of, pictures)
    of.critic_step_loss(x, x_hat, x_alpha, torch.rand(2, 6)).backward()
    assert all(reached(of.critic))
    assert not any(reached(of.model))


def test_the_critic_s_targets_are_alpha_and_zero(pictures):
    of = learner(pictures)
    x, _, x_hat, x_alpha = batch(of, pictures)
    alpha, zeta = torch.linspace(0, 0.5, 6), torch.linspace(0, 1, 6)
    loss = float(of.critic_step_loss(x, x_hat, x_alpha, torch.stack([alpha, zeta])).detach())
    with torch.no_grad():
        share = zeta[:, None, None, None]
        on_mixed = of.critic(x_alpha).double().numpy()
        on_blended = of.critic(share * x + (1 - share) * x_hat).double().numpy()
    want = ((on_mixed - alpha.double().numpy()) ** 2 + on_blended**2).mean()
    assert loss == pytest.approx(want, rel=1e-4)


def test_without_a_part_its_term_is_gone(pictures):
    for objective in (Objective(gaussian=False), Objective(interpolation=False), Objective(structural=False)):
        of = learner(pictures, objective=objective)
        before = [p.clone() for p in of.critic.parameters()]
        list(of.epoch(pictures, 0))
        critic_learnt = any(not torch.equal(a, b) for a, b in zip(before, of.critic.parameters(), strict=True))
        assert critic_learnt == objective.interpolation
        x, z, x_hat, _ = batch(of, pictures)
        terms = of.model.reconstruction_term(x, x_hat).mean()
        gaussian = of.m_step_loss(x, x_hat, z, None) - terms
        assert (float(gaussian.detach()) != 0) == objective.gaussian
    squared = float(terms.detach())
    assert squared == pytest.approx(float((x - x_hat).square().mean().detach()), rel=1e-5)


def test_the_e_step_comes_on_schedule_and_sees_every_picture(pictures):
    of = learner(pictures)
    seen = []
    for number in range(4):
        before = of.representations(pictures)
        list(of.epoch(pictures, number))
        seen.append((of.model.mu.clone(), float(of.model.sigma)))
        if number % 2 == 0:
            want = e_step(before)
            assert torch.equal(of.model.mu, want.mu)
            assert float(of.model.sigma) == float(want.sigma)
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[1][0], seen[2][0])


def test_a_new_trunk_s_first_sigma_leaves_the_gaussian_term_its_gradient(pictures):
    of = learner(pictures, fixed=False)
    next(of.epoch(pictures, 0))
    z = batch(of, pictures)[1]
    term = of.model.gaussian_term(z)
    assert float(term.detach().mean()) < 0.9
    assert float(torch.autograd.grad(term.sum(), z)[0].norm()) > 0.1


def test_the_e_step_leaves_the_networks_learning(pictures):
    """Batch norms left as they are in evaluation would not move in the M-step."""
    of = learner(pictures)
    for number in range(2):
        before = of.model.decoder.blocks[0].bn1.running_mean.clone()
        list(of.epoch(pictures, number))
        assert of.learning.training
        assert not torch.equal(before, of.model.decoder.blocks[0].bn1.running_mean)


def test_a_fixed_trunk_stays_as_it_is(pictures):
    of = learner(pictures)
    before = {name: value.clone() for name, value in of.model.trunk.state_dict().items()}
    list(of.epoch(pictures, 0))
    assert all(torch.equal(value, before[name]) for name, value in of.model.trunk.state_dict().items())
    assert not of.model.trunk.training


def test_the_rate_falls_as_a_power_to_nothing(pictures):
    of = learner(pictures)
    rates = []
    for number in range(4):
        list(of.epoch(pictures, number))
        rates.append(of.optimiser.param_groups[0]["lr"])
    steps = np.array([(number + 2 / 3) / 4 for number in range(4)])  # the last of three steps of a pass
    np.testing.assert_allclose(rates, SETTINGS.learning_rate * (1 - steps) ** 0.9)
    assert of.critic_optimiser.param_groups[0]["lr"] == rates[-1]


def weights(of):
    return torch.cat([p.detach().flatten() for p in [*of.learning.parameters(), *of.critic.parameters()]])


def test_same_seed_same_bits_and_another_seed_others(pictures):
    runs = []
    for seed in (0, 0, 1):
        of = learner(pictures, seed=seed)
        for number in range(2):
            list(of.epoch(pictures, number))
        runs.append(weights(of))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("fixed", [True, False])
def test_going_on_gives_the_same_bits(fixed, pictures, tmp_path):
    whole = learner(pictures, fixed)
    for number in range(4):
        list(whole.epoch(pictures, number))
        if number == 2:  # between E-steps, so mu and sigma must be kept too
            torch.save(whole.state(), tmp_path / "state")
    again = learner(pictures, fixed)
    again.restore(torch.load(tmp_path / "state", weights_only=True))
    list(again.epoch(pictures, 3))
    assert torch.equal(weights(whole), weights(again))
    assert torch.equal(whole.model.mu, again.model.mu)
    assert whole.model.sigma == again.model.sigma


def test_it_learns_to_reconstruct():
    steps = np.linspace(0, 255, SIDE)[None, :] * np.linspace(0.3, 1, 14)[:, None]
    ramps = Resized(np.tile(steps[:, None, :, None], (1, SIDE, 1, 3)).astype(np.uint8), np.arange(14))
    of = learner(ramps)
    rows = torch.arange(14)

    def error():
        of.learning.eval()
        with torch.no_grad():
            x = unit(ramps, rows)
            return float(of.model.reconstruction_term(x, of.model.decoder(of._encoded(x, rows))).mean())

    before = error()
    for _ in range(20):
        list(of.epoch(ramps, 0))
    assert error() < 0.6 * before
