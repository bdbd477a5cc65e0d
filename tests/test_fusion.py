"""Fusion rules against their definitions in float64."""

import numpy as np
import pytest
from scipy import stats

from engine.fusion import fuse


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (2, 5, 6)])
def test_mean_weighted_mean_and_maximum(dtype, shape):
    members = np.random.default_rng(0).exponential(size=(3, *shape))
    given = [member.astype(dtype) for member in members]
    before = [member.copy() for member in given]
    tolerance = 1e-6 if dtype is np.float32 else 1e-15
    for weights in ((1, 1, 1), (1, 2, 5)):
        want = np.average(members, axis=0, weights=weights)
        got = fuse(given, weights, "mean")
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=tolerance)
        np.testing.assert_allclose(fuse(given, weights, "max"), members.max(axis=0), rtol=tolerance)
    np.testing.assert_array_equal(given, before)


def test_the_mean_orders_as_fisher_s_and_brown_s_combination_do():
    """So a calibrated mean gives the verdicts of either."""
    p = np.random.default_rng(0).uniform(size=(3, 200))
    fused = fuse(list(-np.log(p)), (1, 1, 1), "mean")
    fisher = [stats.combine_pvalues(column, "fisher").pvalue for column in p.T]
    brown = stats.chi2.sf(-2 * np.log(p).sum(axis=0) / 1.6, 6 / 1.6)  # scale and freedom of correlated members
    assert (np.argsort(fused) == np.argsort(fisher)[::-1]).all()
    assert (np.argsort(fused) == np.argsort(brown)[::-1]).all()
