"""Streaming, merging and taking out against a fit of the same pictures at once."""

from __future__ import annotations

import numpy as np
import pytest

import kernels


def gathered(features, sizes, channels=8, grid=(3, 5)):
    pictures = kernels.Accumulator(channels, *grid, threads=1)
    first = 0
    for size in sizes:
        pictures.add(features[first : first + size])
        first += size
    assert pictures.count == first
    return pictures


def same(model, expected, features, tolerance=1e-6):
    assert model.samples == expected.samples
    got = kernels.mahalanobis_map(features, model, threads=1)
    np.testing.assert_allclose(got, kernels.mahalanobis_map(features, expected, threads=1), rtol=tolerance)


@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (7, 0, 33), (3, 4, 20, 13), (5,), (2, 3, 3)])
@pytest.mark.parametrize("form", ["triangular", "low_rank"])
def test_streaming_equals_one_fit(world, sizes, form):
    w = world(8, samples=40)
    count = sum(sizes)
    model = gathered(w.train, sizes).fit(0.3, factorisation=form)
    same(model, kernels.fit(w.train[:count], 0.3, factorisation=form), w.test)


@pytest.mark.parametrize(("ours", "theirs"), [(20, 20), (5, 20), (20, 5), (4, 4), (3, 3), (0, 20), (20, 0), (0, 4)])
def test_merging_equals_one_fit(world, ours, theirs):
    w = world(8, samples=40)
    left, right = gathered(w.train, (ours,)), gathered(w.train[ours:], (theirs,))
    before = right.nbytes
    left.merge(right)
    assert (left.count, right.count, right.nbytes) == (ours + theirs, theirs, before)
    same(left.fit(0.3), kernels.fit(w.train[: ours + theirs], 0.3), w.test)


@pytest.mark.parametrize(("total", "fold"), [(40, 10), (40, 3), (8, 3), (40, 38)])
def test_taking_out_equals_a_fresh_fit(world, total, fold):
    w = world(8, samples=40)
    pictures, out = gathered(w.train, (total,)), gathered(w.train, (fold,))
    pictures.subtract(out)
    model = pictures.fit(0.3)
    same(model, kernels.fit(w.train[fold:total], 0.3), w.test, 1e-5)
    pictures.merge(out)
    same(pictures.fit(0.3), kernels.fit(w.train[:total], 0.3), w.test, 1e-5)


@pytest.mark.parametrize("count", [3, 20])
def test_merging_with_itself_counts_twice(world, count):
    w = world(8, samples=count)
    pictures = gathered(w.train, (count,))
    pictures.merge(pictures)
    same(pictures.fit(0.3), kernels.fit(np.concatenate([w.train, w.train]), 0.3), w.test)


def test_taking_out_everything_leaves_nothing(world):
    w = world(8, samples=40)
    pictures = gathered(w.train, (40,))
    pictures.subtract(gathered(w.train, (40,)))
    assert (pictures.count, pictures.nbytes) == (0, 0)
    pictures.add(w.train)
    same(pictures.fit(0.3), kernels.fit(w.train, 0.3), w.test)


@pytest.mark.parametrize("count", [5, 40])
def test_variance_equals_numpy(world, count):
    w = world(8, samples=40)
    got = gathered(w.train, (count,)).variance()
    np.testing.assert_allclose(got, w.train[:count].astype(np.float64).var(axis=0, ddof=1), rtol=1e-6)


def test_batches_are_copied(world):
    w = world(8, samples=6)
    batch = w.train.copy()
    pictures = gathered(batch, (6,))
    batch[...] = 0
    same(pictures.fit(0.3), kernels.fit(w.train, 0.3), w.test)


def test_memory_is_bounded_by_the_moments():
    rng = np.random.default_rng(0)
    pictures = kernels.Accumulator(16, 2, 3)
    most = 0
    for _ in range(50):
        pictures.add(rng.standard_normal((7, 16, 2, 3)).astype(np.float32))
        most = max(most, pictures.nbytes)
    assert most <= 8 * 6 * 16 * (16 + 3)


def test_wrong_use_is_refused(world):
    w = world(8)
    pictures = gathered(w.train, (4,))
    with pytest.raises(kernels.ShapeError, match=r"features: expected \(K, C, h, w\) with .* = \(8, 3, 5\)"):
        pictures.add(w.train[:, :7])
    with pytest.raises(kernels.ShapeError, match=r"accumulator: expected \(C, h, w\) = \(8, 3, 5\), got \(8, 5, 3\)"):
        pictures.merge(kernels.Accumulator(8, 5, 3))
    with pytest.raises(kernels.KernelError, match="subtract: expected at most 4 pictures, got 5"):
        pictures.subtract(gathered(w.train, (5,)))
    with pytest.raises(kernels.KernelError, match="at least 2 training pictures, got 0"):
        kernels.Accumulator(8, 3, 5).variance()
    with pytest.raises(kernels.ShapeError, match="expected positive sizes"):
        kernels.Accumulator(0, 3, 5)
    w.train[0, 0, 0, 0] = np.inf
    with pytest.raises(kernels.KernelError, match="expected finite values"):
        pictures.add(w.train)
    assert pictures.count == 4
