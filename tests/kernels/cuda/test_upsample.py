"""Maps and scores of the device code against the head that the engine uses."""

from __future__ import annotations

import numpy as np
import pytest

from engine import maps
from kernels.cuda.head import Band, MapHead
from kernels.errors import ShapeError


def bands(grid, size, sigma):
    return [Band.of(maps.operator(cells, pixels, sigma)) for cells, pixels in zip(grid, size, strict=True)]


@pytest.mark.parametrize(
    ("batch", "grid", "size", "sigma"),
    [(2, (5, 7), (20, 33), 2.0), (1, (1, 1), (9, 5), 1.0), (3, (4, 4), (4, 4), 0.0), (1, (6, 3), (41, 270), 4.0)],
)
def test_equals_the_engine(gpus, batch, grid, size, sigma):
    grids = np.random.default_rng(0).gamma(2.0, size=(batch, *grid)).astype(np.float32)
    got_maps, got_scores = gpus("h100").upsample(grids, *bands(grid, size, sigma))
    scores, expected = maps.MapHead(grid, *size, sigma)(grids)
    np.testing.assert_allclose(got_maps, expected, rtol=1e-5)
    np.testing.assert_allclose(got_scores, scores, rtol=1e-5)
    assert np.array_equal(got_scores, got_maps.max(axis=(1, 2)))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_a_distance_that_is_not_finite_reaches_the_score(gpus, bad):
    grids = np.ones((2, 6, 6), np.float32)
    grids[1, 2, 2] = bad
    got_maps, got_scores = gpus("h100").upsample(grids, *bands((6, 6), (48, 48), 1.0))
    np.testing.assert_allclose(got_maps[0], 1, rtol=1e-5)
    assert got_scores[0] == got_maps[0].max()
    assert not np.isfinite(got_scores[1])
    assert np.isfinite(got_maps[1, -8:, -8:]).all()  # pixels that do not see it


def test_an_empty_batch(gpus):
    got_maps, got_scores = gpus("h100").upsample(np.ones((0, 3, 3), np.float32), *bands((3, 3), (6, 6), 1.0))
    assert (got_maps.shape, got_scores.shape) == ((0, 6, 6), (0,))


@pytest.mark.parametrize(("cells", "pixels", "sigma"), [(5, 20, 2.0), (7, 9, 0.0), (1, 4, 3.0), (3, 300, 4.0)])
def test_a_band_is_its_matrix(cells, pixels, sigma):
    matrix = maps.operator(cells, pixels, sigma)
    band = Band.of(matrix)
    back = np.zeros_like(matrix)
    columns = band.first[:, None] + np.arange(band.weights.shape[1])
    assert columns.min() >= 0
    assert columns.max() < cells
    np.put_along_axis(back, columns, band.weights, axis=1)
    assert np.array_equal(back, matrix.astype(np.float32))


def test_negative_operators_are_refused():
    with pytest.raises(ShapeError, match="operators: expected entries >= 0"):
        MapHead(-np.eye(3), np.eye(3))
