"""Scores of patches, laid where the patches are."""

import numpy as np
import pytest
import torch

from trainers.droc import saved
from trainers.droc.detector import RotationSoftmax, Scored, placing
from trainers.droc.fit import fit
from trainers.droc.settings import Settings
from trainers.learning.passes import seeded


@pytest.mark.parametrize(("side", "patch", "stride"), [(256, 32, 4), (192, 64, 8), (64, 32, 16)])
def test_a_map_that_rises_evenly_is_kept_where_there_are_centres(side, patch, stride):
    """Cells between the first and the last patch's centre show the line through the centres; others the nearest."""
    weights = placing(side, patch, stride)
    centres = np.arange(0, side - patch + 1, stride) + patch / 2
    cells = (np.arange(side // stride) + 0.5) * stride
    want = np.clip(cells, centres[0], centres[-1])
    np.testing.assert_allclose(weights @ centres, want, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_a_single_patch_is_a_single_cell():
    np.testing.assert_array_equal(placing(32, 32, 4), [[1]])


def made(settings, classifier="gde"):
    with seeded(0):
        model = saved.make_representation(settings, saved.make_trunk(settings))
        features = torch.randn(300, model.trunk.features).double().numpy()
    return model, None if classifier is None else fit(classifier, features)


def pictures(side):
    return torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", ["padding-free", "resnet18"])
def test_a_place_s_score_is_that_of_its_patch_s_features(network):
    model, classifier = made(Settings(width="narrow", network=network))
    scorer = Scored(model.trunk, classifier).eval()
    x, stride = pictures(64), model.trunk.stride_px
    with torch.no_grad():
        places = scorer(x)
        row, column = 1, places.shape[2] - 1
        patch = x[:, :, row * stride : row * stride + 32, column * stride : column * stride + 32]
        torch.testing.assert_close(places[:, row, column], classifier(model.trunk(patch)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", ["padding-free", "resnet18"])
def test_rotation_softmax_is_the_product_of_the_four_probabilities_of_a_patch(network):
    model, _ = made(Settings(width="narrow", network=network, pretext="rotation", head_layers=0), None)
    x, stride = pictures(64), model.trunk.stride_px
    x[:, :, 32:] = x[:, :, :, 32:] = 0  # bright in one corner only, so that places differ
    with torch.no_grad():
        model.head.rotations.weight *= 300  # so that the probabilities are not all a quarter
        places = RotationSoftmax(model.trunk, model.head).eval()(x)
        patch = x[:, :, :32, stride : stride + 32]
        product = torch.ones(2, dtype=torch.float64)
        for k in range(4):
            probabilities = model.head.logits(model.trunk(torch.rot90(patch, k, (2, 3)))).double().softmax(dim=1)
            product *= probabilities[:, k]
    torch.testing.assert_close(places[:, 0, 1], -product.log().float() / 4, rtol=1e-3, atol=1e-4)
    assert (places[:, 0, 1] - places[:, -1, -1]).abs().min() > 0.01


def test_a_picture_s_score_is_its_worst_patch_s_and_differentiable():
    settings = Settings(width="narrow", side_px=64)
    model, classifier = made(settings)
    detector = saved.detector(model, classifier, settings)
    x = pictures(64).requires_grad_()
    scores = detector.score(x)
    torch.testing.assert_close(scores, Scored(model.trunk, classifier)(x).amax(dim=(1, 2)))
    scores.sum().backward()
    assert x.grad.abs().sum() > 0
    assert ((x.grad != 0).any(dim=1).sum(dim=(1, 2)) <= 32 * 32).all()  # of one patch each


def test_pictures_are_taken_as_they_are_served():
    settings = Settings(width="narrow", side_px=64)
    model, classifier = made(settings)
    detector = saved.detector(model, classifier, settings)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        grid = detector(images)
        assert grid.shape == (2, 16, 16)
        torch.testing.assert_close(grid, detector.map(images.permute(0, 3, 1, 2) / 255))
