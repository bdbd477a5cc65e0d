"""Everything that benchmarks/ holds against the kernel computes the same distances."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from benchmarks import contenders
from benchmarks.bench_mahalanobis import Case, answer, table

GRID = (3, 5)
RNG = np.random.default_rng(0)
TRAIN = RNG.standard_normal((40, 7, *GRID), np.float32)
FEATURES = RNG.standard_normal((4, 7, *GRID), np.float32)


@pytest.fixture(scope="module")
def expected():
    flat = TRAIN.astype(np.float64).reshape(40, 7, -1)
    sigma = np.stack([np.cov(flat[:, :, p].T) + contenders.EPS * np.eye(7) for p in range(15)])
    return kernels.reference(FEATURES, TRAIN.mean(0).transpose(1, 2, 0), sigma.reshape(*GRID, 7, 7))


@pytest.mark.parametrize(
    "contender",
    [*contenders.ours(TRAIN, 1)[:3], *contenders.others(contenders.fit_plain(TRAIN), GRID, 1)],
    ids=lambda contender: contender.name,
)
def test_contenders_give_the_defined_distances(contender, expected):
    np.testing.assert_allclose(
        contender.distances(FEATURES), expected, rtol=2e-2 if "float16" in contender.name else 1e-4
    )
    assert contender.seconds(FEATURES) > 0


def test_the_table_has_a_row_for_each_contender_and_batch():
    document = answer(1, (Case(3, 4, 5),), rounds=1).document
    assert [row["batch"] for row in document["rows"]] == [1] * 7 + [8] * 7
    assert "| 3x4x5 | 8 | NumPy einsum |" in table(document)
