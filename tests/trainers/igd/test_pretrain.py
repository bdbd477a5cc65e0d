"""Distillation and self-supervision against float64 NumPy, and that they teach the trunk."""

import numpy as np
import pytest
import torch

from trainers.dataset.resized import Resized
from trainers.igd.encoder import ResidualTrunk
from trainers.igd.learn import trunk_features
from trainers.igd.pictures import unit
from trainers.igd.pretrain import TEMPERATURE, Contrast, Distillation, PretrainingLearner, nt_xent
from trainers.igd.views import view
from trainers.learning.passes import seeded


@pytest.fixture(scope="module")
def pictures():
    """Each of a colour of its own, fading from top to bottom."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3))
    fading = colours * np.linspace(0.5, 1, 32)[:, None, None] * np.ones((32, 1))
    return Resized(fading.astype(np.uint8), np.arange(40))


def trunk(seed):
    with seeded(seed):
        return ResidualTrunk(32, 0.1, 64)


def test_nt_xent_is_simclr_s():
    rows = torch.randn((10, 16), generator=torch.Generator().manual_seed(0))
    z = rows.double().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    terms = []
    for i in range(10):
        similar = np.exp(z @ z[i] / TEMPERATURE)
        others = similar.sum() - similar[i]
        terms.append(-np.log(similar[(i + 5) % 10] / others))
    assert float(nt_xent(rows)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_distillation_is_the_norm_to_the_backbone_s_features(pictures):
    student, taught = trunk(0), torch.rand((40, 64))
    task = Distillation(student.eval(), taught)
    x, rows = torch.rand((3, 3, 32, 32)), torch.tensor([5, 0, 39])
    with torch.no_grad():
        want = np.linalg.norm((student(x) - taught[rows]).double().numpy(), axis=1).mean()
        assert float(task.loss(x, rows, torch.Generator())) == pytest.approx(want, rel=1e-5)


def test_the_student_comes_nearer_its_teacher(pictures):
    teacher, student = trunk(1), trunk(0)
    taught = trunk_features(teacher, pictures)
    learner = PretrainingLearner(Distillation(student, taught), epochs=60, seed=0)
    losses = [np.mean([loss for _, loss in learner.epoch(pictures, number)]) for number in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    assert not student.training


def test_views_of_a_picture_come_to_be_alike(pictures):
    """By the loss of views that are drawn for the test, the same before and after."""
    with seeded(0):
        task = Contrast(ResidualTrunk(32, 0.1, 64))
    learner = PretrainingLearner(task, epochs=10, seed=0)

    def loss():
        task.learning.train()
        rows = torch.arange(len(pictures))
        with torch.no_grad():
            drawn = [task.loss(unit(pictures, rows), rows, torch.Generator().manual_seed(seed)) for seed in range(5)]
        return float(torch.stack(drawn).mean())

    before = loss()
    for number in range(learner.epochs):
        for _ in learner.epoch(pictures, number):
            pass
    assert loss() < before - 0.1


def test_going_on_gives_the_same_bits(pictures, tmp_path):
    def make():
        with seeded(0):
            return PretrainingLearner(Contrast(ResidualTrunk(32, 0.1, 64)), epochs=2, seed=0)

    whole = make()
    list(whole.epoch(pictures, 0))
    torch.save(whole.state(), tmp_path / "state")
    list(whole.epoch(pictures, 1))
    again = make()
    again.restore(torch.load(tmp_path / "state", weights_only=True))
    list(again.epoch(pictures, 1))
    for a, b in zip(whole.task.learning.parameters(), again.task.learning.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_view_is_a_picture_drawn_by_the_generator():
    x = torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    one, same, other = (view(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    flat = view(torch.full((50, 3, 32, 32), 0.5), torch.Generator().manual_seed(0))
    assert float(flat.std(dim=(2, 3)).max()) < 1e-6  # nothing but light changes what has no structure
    assert 0.3 <= float(flat.min()) < 0.4
    assert 0.6 < float(flat.max()) <= 0.7
