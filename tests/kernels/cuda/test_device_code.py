"""The kernels themselves, run on the CPU under sanitizers, against the float64 definition."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kernels

FORMS = ["triangular", "low_rank"]
CHIPS = ["h100", "rtx4090"]  # with and without fast tf32: tensor cores, or float32 products

# Largest relative error of d, for Sigma of this condition number; those of the CPU's kernels.
TOLERANCE = {
    ("float32", 1e2): 1e-6,
    ("float32", 1e4): 1e-5,
    ("float16", 1e2): 1e-3,
    ("float16", 1e4): 1e-2,
    ("bfloat16", 1e2): 1e-2,
    ("bfloat16", 1e4): 1e-1,
}


def error(got, expected):
    return np.max(np.abs(got / expected - 1), initial=0)


def along_leading(w):
    """A picture along the leading eigenvector, where rounding errors hurt most."""
    leading = np.linalg.eigh(w.covariance)[1][..., -1].transpose(2, 0, 1)
    return (w.mean.transpose(2, 0, 1) + 50 * leading).astype(np.float32)[None]


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("storage", "condition"), TOLERANCE)
def test_equals_the_definition(world, gpus, chip, form, storage, condition):
    w = world(40, grid=(1, 3), samples=120, batch=10, condition=condition)
    model = kernels.fit(w.train, 1.0, factorisation=form, storage=storage)
    for features in (w.test, np.concatenate([along_leading(w)] * 9), along_leading(w)):
        expected = kernels.reference(features, w.mean, w.sigma(1.0))
        assert error(gpus(chip).map(features, model), expected) < TOLERANCE[storage, condition]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 15, 16, 17, 24, 25, 33, 100])
def test_every_number_of_channels(world, gpus, form, channels, batch):
    w = world(channels, grid=(1, 3), samples=2 * channels + 2, batch=batch)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    assert error(gpus("h100").map(w.test, model), kernels.reference(w.test, w.mean, w.sigma(0.5))) < 1e-6


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 8, 17, 33, 256])
def test_every_batch_size(world, gpus, chip, form, batch):
    w = world(20, grid=(1, 3), samples=50, batch=batch)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    assert error(gpus(chip).map(w.test, model), kernels.reference(w.test, w.mean, w.sigma(0.5))) < 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 32, 64])
def test_every_kernel(world, gpus, form, storage, batch):
    """Each storage and group of pictures is a kernel of its own; the CPU's kernels are the twin to compare with."""
    w = world(34, grid=(1, 2), samples=90, batch=batch)
    model = kernels.fit(w.train, 0.5, factorisation=form, storage=storage)
    got = gpus("h100").map(w.test, model)
    rounding = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}[storage] if form == "low_rank" else 1e-6
    assert error(got, kernels.mahalanobis_map(w.test, model)) < rounding


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("chip", "batch"), [("h100", 3), ("tiny", 3), ("one", 9)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 13), (7, 7), (1, 37)])
def test_ragged_positions(world, gpus, form, chip, batch, grid):
    w = world(12, grid=grid, samples=30, batch=batch)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    assert error(gpus(chip).map(w.test, model), kernels.reference(w.test, w.mean, w.sigma(0.5))) < 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("samples", [2, 3, 10, 40])
def test_fewer_samples_than_channels(world, gpus, form, samples):
    w = world(40, grid=(1, 2), samples=samples, batch=9, condition=1e4)
    model = kernels.fit(w.train, 1.0, factorisation=form)
    assert error(gpus("h100").map(w.test, model), kernels.reference(w.test, w.mean, w.sigma(1.0))) < 1e-5


@pytest.mark.parametrize(
    ("form", "channels", "batch"),
    [("triangular", 600, 3), ("low_rank", 600, 3), ("low_rank", 1100, 3), ("low_rank", 600, 9)],
)
def test_many_channels(gpus, form, channels, batch):
    """Low-rank rows of more than 512 channels are shared by warps."""
    rng = np.random.default_rng(0)
    train = rng.standard_normal((7, channels, 1, 3)).astype(np.float32)
    features = rng.standard_normal((batch, channels, 1, 3)).astype(np.float32)
    model = kernels.fit(train, 0.5, factorisation=form)
    assert error(gpus("h100").map(features, model), kernels.mahalanobis_map(features, model)) < 2e-6


@pytest.mark.parametrize("form", FORMS)
def test_long_sums_are_not_cut_off(world, gpus, form):
    """Tensor cores cut every sum off, always towards zero: over all channels at once that would be 2e-6."""
    w = world(304, grid=(1, 1), samples=120)
    model = kernels.fit(w.train, 1.0, factorisation=form)
    features = np.concatenate([along_leading(w)] * 9)
    assert error(gpus("h100").map(features, model), kernels.reference(features, w.mean, w.sigma(1.0))) < 1e-6


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_16_bit_features_are_read_exactly(world, gpus, form, dtype):
    w = world(21, grid=(1, 9), samples=50)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    features = w.test.astype(dtype)
    assert np.array_equal(gpus("h100").map(features, model), gpus("h100").map(features.astype(np.float32), model))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (1, 0, 3, 2)])
@pytest.mark.parametrize("steps", [(1, 1, 1, 1), (-1, 2, -2, 3)])
@pytest.mark.parametrize("half", [False, True])
def test_any_strides(gpus, order, steps, half):
    rng = np.random.default_rng(0)
    shape = (3, 10, 2, 5)
    model = kernels.fit(rng.standard_normal((30, *shape[1:])).astype(np.float32), 0.5)
    stored = [abs(step) * size for step, size in zip(steps, shape, strict=True)]
    values = rng.standard_normal([stored[axis] for axis in order]).astype(np.float16 if half else np.float32)
    strided = values.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    assert strided.shape == shape
    expected = kernels.mahalanobis_map(np.ascontiguousarray(strided), model)
    np.testing.assert_allclose(gpus("h100").map(strided, model), expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [3, 12])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_at_their_position(world, gpus, form, batch, bad):
    w = world(18, grid=(2, 5), samples=50, batch=batch)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    good = gpus("h100").map(w.test, model)
    features = w.test.copy()
    features[1, 7, 1, 3] = bad
    got = gpus("h100").map(features, model)
    assert not np.isfinite(got[1, 1, 3])
    got[1, 1, 3] = good[1, 1, 3]
    assert np.array_equal(got, good)


def test_empty_batch(world, gpus):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    assert gpus("h100").map(w.test[:0], model).shape == (0, 3, 5)


def test_too_many_channels_are_refused(gpus):
    shape = (1, 2049, 1, 1)
    train = np.random.default_rng(0).standard_normal((3, *shape[1:])).astype(np.float32)
    model = kernels.fit(train, 1.0, factorisation="low_rank")
    with pytest.raises(kernels.KernelError, match="status 1"):
        gpus("h100").map(train[:1], model)
