"""Distillation and self-supervision against float64 NumPy, and that they teach the trunk."""

import numpy as np
import pytest
import torch

from trainers.dataset.resized import Resized
from trainers.igd.encoder import ResidualTrunk, standard_of
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


def test_distillation_is_the_norm_to_the_backbone_s_features_on_one_scale(pictures):
    student, taught = trunk(0), 5 * torch.rand((40, 64)) - 3
    task = Distillation(student, taught)
    x, rows = torch.rand((3, 3, 32, 32)), torch.tensor([5, 0, 39])
    with torch.no_grad():
        found = float(task.loss(x, rows, torch.Generator()))
        student_s, teacher_s = student(x).double().numpy(), taught.double().numpy()
    student_s = (student_s - student_s.mean(axis=0)) / np.sqrt(student_s.var(axis=0) + 1e-5)
    teacher_s = (teacher_s - teacher_s.mean(axis=0)) / np.sqrt(teacher_s.var(axis=0, ddof=1) + 1e-5)
    assert found == pytest.approx(np.linalg.norm(student_s - teacher_s[rows], axis=1).mean(), rel=1e-4)


def test_the_student_comes_nearer_its_teacher(pictures):
    """One with features below zero too, as EfficientNet's; the student's own never are."""
    teacher, student = trunk(1), trunk(0)
    taught = trunk_features(teacher, pictures) @ torch.randn((64, 64), generator=torch.Generator().manual_seed(0))
    learner = PretrainingLearner(Distillation(student, taught), epochs=60, seed=0)
    for number in range(learner.epochs):
        list(learner.epoch(pictures, number))
    assert not student.training
    found, wanted = (standard_of(f)(f) for f in (trunk_features(student, pictures), taught))
    explained = 1 - float((found - wanted).square().sum() / wanted.square().sum())
    assert explained > 0.5


def test_views_of_a_picture_come_to_be_alike(pictures):
    """By the loss of views that are drawn for the test, the same before and after 120 steps.

    With momentum and a decay of everything it hardly falls, and after some hundred steps all features are the same.
    """
    with seeded(0):
        task = Contrast(ResidualTrunk(32, 0.1, 64))
    learner = PretrainingLearner(task, epochs=60, seed=0)

    def loss():
        task.learning.train()
        rows = torch.arange(len(pictures))
        with torch.no_grad():
            drawn = [task.loss(unit(pictures, rows), rows, torch.Generator().manual_seed(seed)) for seed in range(5)]
        return float(torch.stack(drawn).mean())

    before = loss()
    for number in range(learner.epochs):
        list(learner.epoch(pictures, number))
    assert loss() < before - 0.3


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
