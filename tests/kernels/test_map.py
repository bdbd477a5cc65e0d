"""The map against its float64 definition, and what it does with unusual arrays."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.machine import INSTRUCTION_SETS
from kernels.mahalanobis import run

FORMS = ["triangular", "low_rank"]

# Largest relative error of d, for Sigma of this condition number; see kernels/README.md.
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


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("storage", "condition"), TOLERANCE)
def test_equals_the_definition(world, isa, form, storage, condition):
    w = world(40, samples=120, batch=5, condition=condition)
    model = kernels.fit(w.train, 1.0, factorisation=form, storage=storage)
    leading = np.linalg.eigh(w.covariance)[1][..., -1].transpose(2, 0, 1)  # where rounding errors hurt most
    along = (w.mean.transpose(2, 0, 1) + 50 * leading).astype(np.float32)
    for features in (w.test, along[None]):
        got = run(features, model, None, 1, isa)
        assert error(got, kernels.reference(features, w.mean, w.sigma(1.0))) < TOLERANCE[storage, condition]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 15, 16, 17, 24, 25, 33, 100])
def test_every_number_of_channels(world, isa, form, channels):
    w = world(channels, grid=(1, 3), samples=2 * channels + 2, batch=9)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    assert error(run(w.test, model, None, 1, isa), kernels.reference(w.test, w.mean, w.sigma(0.5))) < 1e-6


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 8, 17, 256])
def test_every_batch_size(world, isa, form, batch):
    w = world(20, grid=(1, 17), samples=50, batch=batch)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    assert error(run(w.test, model, None, 1, isa), kernels.reference(w.test, w.mean, w.sigma(0.5))) < 1e-6


def test_large_batches_of_many_channels_are_split(world):
    w = world(150, grid=(1, 2), samples=20, batch=60)
    model = kernels.fit(w.train, 0.5)
    assert error(kernels.mahalanobis_map(w.test, model), kernels.reference(w.test, w.mean, w.sigma(0.5))) < 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("samples", [2, 3, 10, 40])
def test_fewer_samples_than_channels(world, form, samples):
    w = world(40, samples=samples, condition=1e4)
    model = kernels.fit(w.train, 1.0, factorisation=form)
    assert error(kernels.mahalanobis_map(w.test, model), kernels.reference(w.test, w.mean, w.sigma(1.0))) < 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [0, 1, 2, 3, 64])
@pytest.mark.parametrize("grid", [(1, 1), (1, 13), (7, 7), (5, 37)])
def test_threads_give_the_same_numbers(world, form, threads, grid):
    w = world(12, grid=grid, samples=30, batch=4)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    one = kernels.mahalanobis_map(w.test, model, threads=1)
    assert np.array_equal(kernels.mahalanobis_map(w.test, model, threads=threads), one)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_16_bit_features_are_read_exactly(world, isa, dtype):
    w = world(21, grid=(4, 9), samples=50)
    model = kernels.fit(w.train, 0.5)
    features = w.test.astype(dtype)
    expected = run(features.astype(np.float32), model, None, 1, isa)
    assert np.array_equal(run(features, model, None, 1, isa), expected)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_all_float16_values_are_read_exactly(isa):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 1, 16, 16)
    model = kernels.Gaussian(
        mean=np.zeros((16, 16, 1), np.float32),
        factor=np.tile(np.float32([0] * 7 + [1]), (256, 1)),
        storage="float32",
        eps=np.array(1.0),
        samples=2,
    )
    got = run(every, model, None, 1, isa)
    finite = np.isfinite(every[:, 0])
    assert np.array_equal(np.isfinite(got), finite)
    assert np.array_equal(got[finite], np.abs(every[:, 0][finite].astype(np.float32)))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@given(
    steps=st.tuples(*[st.sampled_from([-2, -1, 1, 3])] * 4),
    order=st.permutations(range(4)),
    half=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_strides(isa, steps, order, half):
    rng = np.random.default_rng(0)
    shape = (3, 10, 5, 8)
    train = rng.standard_normal((30, *shape[1:])).astype(np.float32)
    model = kernels.fit(train, 0.5)
    stored = [abs(step) * size for step, size in zip(steps, shape, strict=True)]
    values = rng.standard_normal([stored[axis] for axis in order]).astype(np.float16 if half else np.float32)
    strided = values.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    assert strided.shape == shape
    expected = run(np.ascontiguousarray(strided), model, None, 1, isa)
    np.testing.assert_allclose(run(strided, model, None, 1, isa), expected, rtol=1e-6)


def test_unaligned_and_read_only_features(world):
    w = world(9)
    model = kernels.fit(w.train, 0.5)
    expected = kernels.mahalanobis_map(w.test, model)
    memory = np.zeros(w.test.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(np.float32).reshape(w.test.shape)
    unaligned[...] = w.test
    assert np.array_equal(kernels.mahalanobis_map(unaligned, model), expected)
    w.test.flags.writeable = False
    assert np.array_equal(kernels.mahalanobis_map(w.test, model), expected)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_at_their_position(world, isa, form, bad):
    w = world(18, grid=(4, 5), samples=50)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    good = run(w.test, model, None, 1, isa)
    features = w.test.copy()
    features[1, 7, 2, 3] = bad
    got = run(features, model, None, 1, isa)
    assert not np.isfinite(got[1, 2, 3])
    got[1, 2, 3] = good[1, 2, 3]
    assert np.array_equal(got, good)


def test_empty_batch(world):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    assert kernels.mahalanobis_map(w.test[:0], model).shape == (0, 3, 5)


def test_out_is_filled_and_returned(world):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    out = np.full((3, 3, 5), -1, np.float32)
    assert kernels.mahalanobis_map(w.test, model, out=out) is out
    assert np.array_equal(out, kernels.mahalanobis_map(w.test, model))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[0], r"expected \(N, C, h, w\) with \(C, h, w\) = \(6, 3, 5\), got \(6, 3, 5\)"),
        (lambda x: x[:, :5], r"got \(3, 5, 3, 5\)"),
        (lambda x: x[:, :, :, :4], r"got \(3, 6, 3, 4\)"),
        (lambda x: x.astype(np.float64), "expected float32, float16 or bfloat16, got float64"),
        (lambda x: x.astype(np.uint16), "got uint16"),
        (lambda x: x.astype(">f4"), "got >f4"),
    ],
)
def test_wrong_features_are_refused(world, change, said):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    with pytest.raises(kernels.ShapeError, match=said):
        kernels.mahalanobis_map(change(w.test), model)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((3, 3, 4), np.float32),
        np.empty((3, 3, 5), np.float64),
        np.empty((3, 3, 10), np.float32)[:, :, ::2],
        np.frombuffer(bytes(3 * 3 * 5 * 4), np.float32).reshape(3, 3, 5),
    ],
)
def test_wrong_out_is_refused(world, out):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    with pytest.raises(kernels.ShapeError, match="out: expected a writable C-contiguous float32 array"):
        kernels.mahalanobis_map(w.test, model, out=out)


def test_negative_threads_and_unknown_instruction_sets_are_refused(world):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    with pytest.raises(kernels.KernelError, match="threads: expected 0"):
        kernels.mahalanobis_map(w.test, model, threads=-1)
    with pytest.raises(ValueError, match="isa: 'mmx' is not supported"):
        run(w.test, model, None, 1, "mmx")


def test_the_module_checks_sizes_itself(world):
    """A model whose checks were evaded cannot make it read outside its arrays."""
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    short = dataclasses.replace(model)
    object.__setattr__(short, "factor", model.factor[:-1])
    with pytest.raises(ValueError, match="factor: expected"):
        kernels.mahalanobis_map(w.test, short)
