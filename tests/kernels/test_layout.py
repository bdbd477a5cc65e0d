"""Where the packed values of a triangular factor belong."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels.layout import packed_values, triangle


@pytest.mark.parametrize("channels", [1, 7, 8, 9, 16, 17, 24, 40])
def test_the_unpacked_factor_is_the_inverse_cholesky_factor(world, channels):
    w = world(channels, samples=60)
    model = kernels.fit(w.train, 0.5, factorisation="triangular")
    rows, columns = triangle(channels)
    assert len(rows) == len(columns) == packed_values(channels)
    inside = rows >= 0
    assert not model.factor[:, ~inside].any()
    dense = np.zeros((model.positions, channels, channels))
    dense[:, rows[inside], columns[inside]] = model.factor[:, inside]
    want = np.linalg.inv(np.linalg.cholesky(w.sigma(0.5).reshape(-1, channels, channels)))
    np.testing.assert_allclose(dense, want, rtol=1e-3, atol=1e-5)
