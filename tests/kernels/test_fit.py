"""Fitting against NumPy's covariance, and the choices and refusals of `fit`."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import factorise, moments
from kernels.machine import INSTRUCTION_SETS

FORMS = ["triangular", "low_rank"]


def error(model, w, sigma):
    got = kernels.mahalanobis_map(w.test, model, threads=1)
    return np.max(np.abs(got / kernels.reference(w.test, w.mean, sigma) - 1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("samples", [8, 60])
def test_eps_per_channel(world, form, samples):
    w = world(12, samples=samples)
    eps = np.geomspace(0.01, 10, 12)
    model = kernels.fit(w.train, eps, factorisation=form)
    assert error(model, w, w.sigma(eps)) < 1e-5
    assert np.array_equal(model.eps, eps)


@pytest.mark.parametrize("form", FORMS)
def test_a_large_mean_does_not_cancel(world, form):
    w = world(12, samples=60)
    train, test = w.train + np.float32(1000), w.test + np.float32(1000)
    flat = train.astype(np.float64).reshape(60, 12, -1)
    sigma = np.stack([np.cov(flat[:, :, p], rowvar=False) for p in range(15)]).reshape(3, 5, 12, 12) + np.eye(12)
    got = kernels.mahalanobis_map(test, kernels.fit(train, 1.0, factorisation=form))
    expected = kernels.reference(test, flat.mean(axis=0).T.reshape(3, 5, 12), sigma)
    assert np.max(np.abs(got / expected - 1)) < 1e-4  # the features themselves are rounded to 6e-5


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize(("channels", "samples"), [(1, 5), (17, 3), (33, 300)])
def test_moments_equal_numpy(world, monkeypatch, isa, channels, samples):
    monkeypatch.setattr(moments, "BEST", isa)
    w = world(channels, grid=(1, 19), samples=samples)
    got = moments.Moments.of(w.train.reshape(samples, channels, 19), threads=2)
    np.testing.assert_allclose(got.mean, w.mean[0], rtol=1e-12, atol=1e-12)
    upper = np.triu(w.covariance[0])
    np.testing.assert_allclose(got.covariance(), upper, rtol=1e-11, atol=1e-11 * upper.max())


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("channels", [1, 16, 17, 50])
def test_whitening_equals_numpy(world, monkeypatch, isa, channels):
    """W is the inverse Cholesky factor: read off the map of unit vectors, row norms of W by column."""
    monkeypatch.setattr(factorise, "BEST", isa)
    w = world(channels, grid=(1, 3), samples=80)
    model = kernels.fit(w.train, 0.1, factorisation="triangular")
    inverse = np.linalg.inv(np.linalg.cholesky(w.sigma(0.1)[0]))  # (3, C, C)
    units = np.eye(channels)[:, :, None, None] + w.mean.transpose(2, 0, 1)
    got = kernels.mahalanobis_map(units.astype(np.float32), model)[:, 0]
    np.testing.assert_allclose(got, np.linalg.norm(inverse, axis=1).T, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_training_features_of_other_types(world, dtype):
    w = world(6)
    train = w.train.astype(dtype)
    expected = kernels.fit(train.astype(np.float32), 0.5)
    assert np.array_equal(kernels.fit(train, 0.5).factor, expected.factor)


@pytest.mark.parametrize("samples", [20, 200])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_size_is_known_beforehand(world, samples, form, storage):
    w = world(30, samples=samples)
    model = kernels.fit(w.train, 0.5, factorisation=form, storage=storage)
    assert kernels.model_bytes(30, 15, samples, factorisation=form, storage=storage) == model.nbytes
    chosen = kernels.fit(w.train, 0.5, storage=storage)
    assert kernels.model_bytes(30, 15, samples, storage=storage) == chosen.nbytes


def test_the_cheaper_factorisation_is_chosen(world):
    assert kernels.fit(world(60, samples=10).train, 0.5).factorisation == "low_rank"
    assert kernels.fit(world(60, samples=100).train, 0.5).factorisation == "triangular"
    assert kernels.fit(world(60, samples=100).train, 0.5, rank=40).factorisation == "low_rank"
    assert kernels.fit(world(60, samples=10).train + np.eye(60, dtype=np.float32)[:10, :, None, None], 0.5).rank == 9


@pytest.mark.parametrize("samples", [30, 100])
def test_truncation_is_within_its_stated_bound(world, samples):
    w = world(40, samples=samples, batch=200, condition=1e3)
    exact = kernels.reference(w.test, w.mean, w.sigma(1.0)) ** 2
    bounds = []
    for rank in (5, 15, 25):
        model = kernels.fit(w.train, 1.0, rank=rank)
        cut = model.truncation
        relative = kernels.mahalanobis_map(w.test, model).astype(np.float64) ** 2 / exact - 1
        assert model.rank == rank
        assert np.abs(relative).max() <= cut.bound * 1.001
        bounds.append((cut.bound, cut.rms, -cut.explained))
    assert bounds == sorted(bounds, reverse=True)
    full = kernels.fit(w.train, 1.0, rank=min(samples - 1, 40), factorisation="low_rank")
    assert full.truncation is None


def test_truncation_error_on_training_like_pictures(world):
    w = world(40, grid=(1, 4), samples=400, batch=2000, condition=1e3)
    model = kernels.fit(w.train, 1.0, rank=10)
    draw = np.random.default_rng(1).standard_normal((2000, 1, 4, 40))
    root = np.linalg.cholesky(w.sigma(1.0))  # pictures exactly as the model says, not as the training sample
    features = (np.einsum("hwcd,nhwd->nhwc", root, draw) + w.mean).transpose(0, 3, 1, 2).astype(np.float32)
    off = kernels.mahalanobis_map(features, model) ** 2 - kernels.reference(features, w.mean, w.sigma(1.0)) ** 2
    rms = np.sqrt(np.square(off).mean(axis=(0, 1))) / 40
    assert rms.max() == pytest.approx(model.truncation.rms, rel=0.1)


def test_too_large_a_model_is_refused_before_any_work(world):
    w = world(40)
    need = kernels.model_bytes(40, 15, 40)
    assert kernels.fit(w.train, max_bytes=need).nbytes == need
    said = r"model: 40 channels at 3 x 5 positions take .* use at most 3\d channels, a coarser grid"
    with pytest.raises(kernels.TooManyBytesError, match=said):
        kernels.fit(w.train, max_bytes=need - 1)
    with pytest.raises(kernels.TooManyBytesError, match="not even 1 channel fits; use a coarser grid"):
        kernels.fit(w.train, max_bytes=10)


def test_singular_covariances_are_refused(world):
    w = world(10, samples=5)
    with pytest.raises(kernels.SingularError, match="singular one at 15 of 15; raise eps"):
        kernels.fit(w.train, 0.0)
    with pytest.raises(kernels.SingularError, match="eps: expected more than 0 in every channel for a low-rank"):
        kernels.fit(w.train, 0.0, factorisation="low_rank")
    enough = world(10, samples=50)
    assert error(kernels.fit(enough.train, 0.0), enough, enough.sigma(0.0)) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"eps": -1.0}, "eps: expected a number >= 0, or 6 of them"),
        ({"eps": np.nan}, "eps: expected"),
        ({"eps": [1.0] * 5}, "eps: expected"),
        ({"rank": 0}, r"rank: expected 1 to 6 \(the channels\), got 0"),
        ({"rank": 7}, "rank: expected 1 to 6"),
        ({"rank": 3, "factorisation": "triangular"}, "rank: a triangular factor has full rank"),
        ({"factorisation": "qr"}, "factorisation: expected one of"),
        ({"storage": "float64"}, "storage: expected one of float32, float16, bfloat16, got 'float64'"),
        ({"threads": -2}, "threads: expected 0"),
    ],
)
def test_wrong_arguments_are_refused(world, arguments, said):
    with pytest.raises(kernels.KernelError, match=said):
        kernels.fit(world(6).train, **arguments)


def test_unusable_training_features_are_refused(world):
    w = world(6)
    with pytest.raises(kernels.ShapeError, match=r"expected \(K, C, h, w\), got \(6, 3, 5\)"):
        kernels.fit(w.train[0])
    with pytest.raises(kernels.KernelError, match="at least 2 training pictures, got 1"):
        kernels.fit(w.train[:1])
    with pytest.raises(kernels.KernelError, match="at least 2 training pictures, got 0"):
        kernels.fit(w.train[:0])
    w.train[3, 2, 1, 1] = np.nan
    with pytest.raises(kernels.KernelError, match="expected finite values"):
        kernels.fit(w.train)


def test_model_bytes_refuses_counts_below_one():
    with pytest.raises(kernels.KernelError, match="expected positive counts, got channels=0"):
        kernels.model_bytes(0, 10, 10)
