"""The gradient of the Mahalanobis map, against automatic differentiation of the definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kernels
from trainers.network.mahalanobis import Mahalanobis

EPS = 0.5


@pytest.fixture(params=[(6, 3, 4), (20, 3, 4), (300, 6, 8)], ids=["small", "two panels", "in parts"])
def features(request):
    """Of 15 pictures; those of the last shape are too many to be worked on at once."""
    return np.random.default_rng(0).standard_normal((15, *request.param)).astype(np.float32)


def by_definition(features, given, weights):
    """The gradient of the weighted sum of distances, through the inverse covariances."""
    train = features.astype(np.float64).transpose(2, 3, 0, 1)  # (h, w, K, C)
    mean = train.mean(axis=2)
    centred = train - mean[:, :, None]
    sigma = centred.swapaxes(2, 3) @ centred / (len(features) - 1) + EPS * np.eye(features.shape[1])
    x = torch.from_numpy(given).double().requires_grad_()
    y = x.permute(0, 2, 3, 1) - torch.from_numpy(mean)  # (N, h, w, C)
    distances = torch.einsum("nhwc,hwcd,nhwd->nhw", y, torch.from_numpy(np.linalg.inv(sigma)), y).sqrt()
    (distances * weights).sum().backward()
    return x.grad.numpy()


@pytest.mark.parametrize("form", ["triangular", "low_rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_definition_s(features, form, dtype):
    random = np.random.default_rng(1)
    given = torch.from_numpy(random.standard_normal((3, *features.shape[1:]))).to(dtype).requires_grad_()
    weights = torch.from_numpy(random.standard_normal((3, *features.shape[2:]))).float()
    module = Mahalanobis(kernels.fit(features, EPS, factorisation=form))
    (module(given) * weights).sum().backward()
    want = by_definition(features, given.detach().float().numpy(), weights)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    np.testing.assert_allclose(given.grad.float(), want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("form", ["triangular", "low_rank"])
def test_positions_that_do_not_matter_get_nothing(features, form):
    given = torch.from_numpy(features[:2]).requires_grad_()
    Mahalanobis(kernels.fit(features, EPS, factorisation=form))(given)[1, 2, 3].backward()
    where = given.grad.abs().sum(dim=1).nonzero()
    assert where.tolist() == [[1, 2, 3]]


def test_at_the_mean_there_is_no_slope(features):
    model = kernels.fit(features, EPS)
    given = torch.from_numpy(model.mean.transpose(2, 0, 1)[None].copy()).requires_grad_()
    Mahalanobis(model)(given).sum().backward()
    assert not given.grad.any()
