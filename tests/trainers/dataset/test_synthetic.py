"""Made-up defects: where they lie, how large they are, and that every kind can be seen."""

import cv2
import numpy as np
import pytest

from trainers.dataset.synthetic import KINDS, with_defect


def part(seed, coloured=False):
    """A textured square of a quarter of the picture on flat ground."""
    random = np.random.default_rng(seed)
    picture = np.full((160, 200, 3), 120, np.uint8)
    texture = cv2.resize(random.integers(0, 255, (20, 25, 3 if coloured else 1), np.uint8), (100, 80))
    picture[40:120, 50:150] = texture.reshape(80, 100, -1)
    return picture


def changed(good, bad):
    return np.abs(bad.astype(int) - good).max(axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_small_and_seen_and_the_rest_stays(kind):
    for seed in range(20):
        good = part(seed)
        bad = with_defect(good, kind, np.random.default_rng(seed))
        assert (bad.dtype, bad.shape) == (good.dtype, good.shape)
        change = changed(good, bad)
        assert change.max() >= 5
        rows, columns = np.nonzero(change)
        assert np.ptp(rows) <= 0.62 * 160
        assert np.ptp(columns) <= 0.62 * 160
        assert 0 < (change > 0).mean() < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_depends_on_its_seed_alone(kind):
    one, again, other = (with_defect(part(0), kind, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("kind", KINDS)
def test_defects_are_where_there_is_something_to_see(kind):
    """Not on the ground, which is three quarters of the picture."""
    on_part = 0.0
    for seed in range(30):
        change = changed(part(seed), with_defect(part(seed), kind, np.random.default_rng(seed))).astype(float)
        on_part += change[40:120, 50:150].sum() / change.sum() / 30
    assert on_part > 0.6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coloured", [False, True])
def test_grey_pictures_stay_grey(kind, coloured):
    """A coloured defect on them would be found too easily."""
    tints = []
    for seed in range(10):
        bad = with_defect(part(seed, coloured), kind, np.random.default_rng(seed))
        change = bad.astype(int) - part(seed, coloured)
        tints.append(np.ptp(change, axis=2).max())
    assert (max(tints) > 10) == coloured


def test_defects_have_many_sizes():
    sizes = [
        (changed(part(0), with_defect(part(0), kind, np.random.default_rng(seed))) > 3).sum() ** 0.5
        for kind in KINDS
        for seed in range(30)
    ]
    assert np.quantile(sizes, 0.1) < 6
    assert np.quantile(sizes, 0.9) > 18
