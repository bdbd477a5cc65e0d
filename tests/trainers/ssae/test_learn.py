"""Training: what a pass feeds, that it repairs, that it repeats to the bit, and when it stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.passes import learn, seeded
from trainers.progress import RecordedProgress
from trainers.ssae.corrupt import Corruption
from trainers.ssae.learn import SsaeLearner
from trainers.ssae.model import Autoencoder
from trainers.ssae.separation import Separation
from trainers.ssae.settings import Settings

SIDE = 64
TINY = Settings(side_px=SIDE, epochs=3, batch_size=4, stages=(0.5, 1.0))


@pytest.fixture(scope="module")
def pictures():
    """Stripes of several phases, with a little noise."""
    random = np.random.default_rng(0)
    phase = random.uniform(0, 8, (24, 1, 1, 1))
    stripes = 128 + 80 * np.sin(2 * np.pi * (np.arange(SIDE)[None, None, :, None] + phase) / 8)
    values = stripes + random.normal(0, 3, (24, SIDE, SIDE, 3))
    return Resized(np.clip(values, 0, 255).astype(np.uint8), np.arange(24))


def network(share=1 / 16):
    with seeded(0):
        return Autoencoder(share)


def learner(settings=TINY, equation=1, separation=None, seed=0):
    return SsaeLearner(network(), equation, settings, seed, separation)


def train(one, pictures, path, progress=None):
    learn(one, pictures, Checkpoint.beside(path, "one"), progress or RecordedProgress())
    return one.finish().state_dict()


def equal(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_crops_grow_with_the_epochs():
    settings = replace(TINY, epochs=9, stages=(0.5, 0.75, 1.0))
    one = learner(settings)
    assert [one.side_px(epoch) for epoch in range(9)] == [32] * 3 + [48] * 3 + [64] * 3
    assert [one.side_px(epoch) for epoch in (0, 1)] == [32, 32]
    odd = learner(replace(TINY, stages=(0.01, 0.6)))
    assert [odd.side_px(epoch) for epoch in (0, 2)] == [8, 40]


def test_work_is_in_proportion_to_pixels(pictures):
    one = learner()
    assert one.work(pictures, 2) == 4 * one.work(pictures, 0)
    assert sum(work for work, _ in one.epoch(pictures, 2)) == one.work(pictures, 2)


def test_the_rate_falls_by_one_cosine():
    one = learner()
    for share, factor in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        one._set_rate(share)
        assert one.optimiser.param_groups[0]["lr"] == pytest.approx(TINY.rate * factor)


def test_every_layer_learns(pictures):
    one = learner()
    before = {name: p.detach().clone() for name, p in one.network.named_parameters()}
    next(one.epoch(pictures, 0))
    assert all(not torch.equal(p, before[name]) for name, p in one.network.named_parameters())


@pytest.fixture(scope="module")
def repairing(pictures, tmp_path_factory):
    """F after enough passes to have learnt stripes."""
    settings = replace(TINY, epochs=24, learning_rate=0.004, corruption=Corruption(patches=2, sides=(0.2, 0.4)))
    one = SsaeLearner(network(1 / 8), 1, settings, 0, None)
    learn(one, pictures, Checkpoint.beside(tmp_path_factory.mktemp("x") / "out", ""), RecordedProgress())
    return one.finish()


def test_objective_1_restores_what_was_corrupted(repairing, pictures):
    """Proposition 1's reading: the output lies nearer to the original than the corrupted input does."""
    x = in_unit_range(torch.from_numpy(pictures.take(range(12))))
    pair = Corruption(kind="cut-out", patches=1, sides=(0.2, 0.3))(x, torch.Generator().manual_seed(5))
    with torch.no_grad():
        output = repairing(pair.corrupted)
    distance = ((output - x) * pair.mask).square().sum(dim=(1, 2, 3)).sqrt()
    corrupted = ((pair.corrupted - x) * pair.mask).square().sum(dim=(1, 2, 3)).sqrt()
    assert (distance < 0.7 * corrupted).all()
    error = (output - pair.corrupted).square().mean(dim=1, keepdim=True)
    inside, outside = error[pair.mask > 0.5].mean(), error[pair.mask == 0].mean()
    assert inside > 4 * outside


def test_the_same_seed_gives_the_same_bits(pictures, tmp_path):
    a, b, c = (train(learner(seed=s), pictures, tmp_path / str(i)) for i, s in enumerate((0, 0, 1)))
    assert equal(a, b)
    assert not equal(a, c)


def test_every_pass_draws_anew(pictures):
    settings = replace(TINY, stages=(1.0,))
    first = {next(learner(settings).epoch(pictures, number))[1] for number in range(3)}  # the loss before any step
    assert len(first) == 3


@pytest.mark.parametrize("equation", [1, 2])
def test_an_interrupted_training_goes_on_to_the_same_bits(equation, pictures, tmp_path, interrupted):
    def one():
        separation = Separation(pictures.subset(range(4)), TINY.corruption, 0) if equation == 2 else None
        return learner(equation=equation, separation=separation)

    whole = train(one(), pictures, tmp_path / "whole")
    interrupted(lambda progress: train(one(), pictures, tmp_path / "broken", progress))
    progress = RecordedProgress()
    resumed = train(one(), pictures, tmp_path / "broken", progress)
    assert any(line.startswith("going on after epoch") for line in progress.lines)
    assert equal(whole, resumed)


# Early stopping


def test_separation_is_measured_on_corruptions_that_training_lacks(pictures):
    apart = pictures.subset(range(4))
    separation = Separation(apart, Corruption(kind="elastic"), 0)
    black = (separation.pictures == 0).all(dim=1).flatten(1).any(dim=1)
    assert black.sum() == 16  # the cut-outs; the other half is swapped
    assert len(separation.pictures) == 32
    again = Separation(apart, Corruption(kind="elastic"), 0)
    assert torch.equal(separation.pictures, again.pictures)
    assert len(Separation(apart, Corruption(kind="swap"), 0).pictures) == 32


class Perfect(torch.nn.Module):
    """Gives the good picture that a corrupted one is nearest to."""

    def __init__(self, good):
        super().__init__()
        self.good = torch.nn.Parameter(good)

    def forward(self, x):
        distance = (x[:, None] - self.good).square().sum(dim=(2, 3, 4))
        return self.good[distance.argmin(dim=1)]


def test_separation_is_one_for_perfect_repair_and_a_half_for_none(pictures):
    apart = pictures.subset(range(4))
    separation = Separation(apart, Corruption(kind="elastic"), 0)
    good = in_unit_range(torch.from_numpy(apart.take(range(4))))
    assert separation(Perfect(good)) > 0.95
    copy = torch.nn.Conv2d(3, 3, 1)
    torch.nn.init.dirac_(copy.weight)
    torch.nn.init.zeros_(copy.bias)
    assert separation(copy) == pytest.approx(0.5, abs=0.01)


class Scripted:
    """Separations told beforehand."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, network):
        return self.values.pop(0)


def test_only_epochs_of_the_last_stage_are_compared(pictures, tmp_path):
    settings = replace(TINY, epochs=5, stages=(0.25, 0.25, 0.5), patience=9)
    one = learner(settings, 2, Scripted(0.9))  # asked once: stages begin with epochs 0, 2 and 4
    train(one, pictures, tmp_path / "whole")
    assert one.separations == [0.9]
    assert one.best_epoch == 5
    assert [settings.first_of_stage(stage) for stage in range(3)] == [0, 2, 4]


def test_training_stops_when_separation_no_longer_grows_and_goes_back_to_the_best(pictures, tmp_path):
    settings = replace(TINY, epochs=9, patience=2, stages=(0.5,))
    one = learner(settings, 2, Scripted(0.6, 0.9, 0.8, 0.7, 0.99))
    stopped = train(one, pictures, tmp_path / "stopped")
    assert one.separations == [0.6, 0.9, 0.8, 0.7]
    assert (one.epochs, one.best_epoch) == (4, 2)
    until = learner(settings, 2, Scripted(0.6, 0.9))
    for epoch in range(2):
        list(until.epoch(pictures, epoch))
    assert equal(stopped, until.network.state_dict())
