"""Stage one as a training: steps, rate, determinism, going on, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainers.dataset.resized import Resized
from trainers.droc import saved
from trainers.droc.learn import DrocLearner
from trainers.droc.pictures import patch_features, random_patches
from trainers.droc.settings import Settings
from trainers.droc.uniformity import mmd
from trainers.learning.passes import seeded
from trainers.progress import RecordedProgress

QUICK = Settings(width="narrow", side_px=64, patches=4, batch_size=8, epochs=3)


@pytest.fixture(scope="module")
def pictures():
    """Each a colour of its own that fades from top to bottom, so that turns can be told."""
    colours = np.random.default_rng(0).integers(0, 256, (20, 1, 1, 3))
    fading = colours * np.linspace(0.2, 1, 64)[:, None, None] * np.ones((64, 1))
    return Resized(fading.astype(np.uint8), np.arange(20))


def learner(settings, said=None):
    with seeded(0):
        model = saved.make_representation(settings, saved.make_trunk(settings))
    return DrocLearner(model, settings, 0, (said if said is not None else []).append)


def losses(learning, pictures):
    return [np.mean([loss for _, loss in learning.epoch(pictures, n)]) for n in range(learning.epochs)]


@pytest.mark.parametrize("pretext", ["rotation", "contrastive", "distaug"])
def test_it_learns(pretext, pictures):
    settings = replace(QUICK, pretext=pretext, epochs=16, learning_rate=0.05, head_layers=1)
    found = losses(learner(settings), pictures)
    assert np.mean(found[-3:]) < np.mean(found[:3]) - 0.1


def test_steps_are_of_one_size_and_pictures_equally_often(pictures):
    steps = learner(replace(QUICK, batch_size=7))._steps(pictures, 0, torch.Generator())
    assert [len(rows) for rows in steps] == [7] * 11  # of 80 patches, three are left out
    steps = learner(QUICK)._steps(pictures, 0, torch.Generator())
    assert torch.bincount(torch.cat(steps)).tolist() == [4] * 20
    whole = learner(replace(QUICK, side_px=32, network="padding-free"))
    assert sum(len(rows) for rows in whole._steps(pictures, 0, torch.Generator())) == 16  # one look at each


def test_too_few_pictures_for_a_step_are_one_step(pictures):
    found = learner(replace(QUICK, batch_size=500))._steps(pictures, 0, torch.Generator())
    assert [len(rows) for rows in found] == [80]


def test_the_rate_is_one_cosine_to_zero():
    learning = learner(QUICK)
    for share, rate in ((0.0, 0.01), (0.5, 0.005), (1.0, 0.0)):
        learning._set_rate(share)
        assert learning.optimiser.param_groups[0]["lr"] == pytest.approx(rate)
    group = learning.optimiser.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 3e-4)


def test_uniformity_is_noted_after_every_pass_and_said(pictures):
    said = []
    learning = learner(QUICK, said)
    losses(learning, pictures)
    assert len(learning.uniformity) == 3
    assert said[-1] == f"epoch 3/3: MMD of embeddings to uniform {learning.uniformity[-1]:.4f}"
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(20, (512,), generator=generator)
    x = random_patches(pictures, rows, 32, generator)
    with torch.no_grad():
        assert learning.uniformity[-1] == pytest.approx(mmd(learning.finish()(x)), rel=1e-4)


def test_the_same_seed_gives_the_same_bits_also_after_an_interruption(pictures, tmp_path):
    whole = learner(QUICK)
    list(whole.epoch(pictures, 0))
    torch.save(whole.state(), tmp_path / "state")
    list(whole.epoch(pictures, 1))
    again = learner(QUICK)
    again.restore(torch.load(tmp_path / "state", weights_only=True))
    list(again.epoch(pictures, 1))
    assert whole.uniformity == again.uniformity
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_patches_are_windows_of_their_pictures(pictures):
    generator = torch.Generator().manual_seed(3)
    x = random_patches(pictures, torch.tensor([4, 4, 11]), 32, generator)
    assert x.shape == (3, 3, 32, 32)
    for patch, row in zip(x, (4, 4, 11), strict=True):
        picture = torch.from_numpy(pictures.pixels[row]).permute(2, 0, 1).float() / 255
        windows = picture.unfold(1, 32, 1)[:, :, 0].permute(1, 0, 2)  # of rows; all columns are alike
        assert any(torch.equal(patch[:, :, 0], window) for window in windows)
    assert not torch.equal(x[0], x[1])


def test_features_are_of_unaltered_patches_equally_many_of_each_picture(pictures):
    with seeded(0):
        trunk = saved.make_trunk(QUICK)
    found = patch_features(trunk, pictures, 100, 0, RecordedProgress())
    assert found.shape == (100, trunk.features)
    with torch.no_grad():
        x = torch.from_numpy(pictures.take(range(20))).permute(0, 3, 1, 2) / 255
        dense = trunk.eval().dense(x).flatten(2).permute(0, 2, 1).double().numpy()  # (20, 81, D)
    for k, of_one in enumerate(found.reshape(20, 5, -1)):
        distances = np.abs(of_one[:, None] - dense[k][None]).max(axis=2)
        assert distances.min(axis=1).max() < 1e-4
    assert len(patch_features(trunk, pictures, 10**6, 0, RecordedProgress())) == 20 * 81
    assert len(patch_features(trunk, pictures, 90, 0, RecordedProgress())) == 90
