"""Which pictures are set aside, and what their scores become."""

import numpy as np
import pytest

from engine.errors import DataError
from engine.maps import MapHead
from trainers.calibration.holdout import HeldOut, hold_out
from trainers.calibration.thresholds import PixelScores, calibrate
from trainers.dataset.resized import Resized


def pictures(n):
    return Resized(np.empty((n, 1, 1, 3), np.uint8), np.arange(n))


@pytest.mark.parametrize("n", [20, 24, 320, 1000, 1010])
def test_a_fifth_is_held_out_as_whole_blocks(n):
    split = hold_out(pictures(n))
    held = split.held_out.rows
    runs = np.split(held, np.flatnonzero(np.diff(held) > 1) + 1)
    assert len(runs) == 4
    assert {len(run) for run in runs} <= {n // 20, n // 20 + 1}
    assert len(held) == pytest.approx(n / 5, abs=2)
    assert len(held) >= 4  # what a threshold needs
    assert sorted([*held, *split.training.rows]) == list(range(n))


def test_too_few_pictures_are_refused():
    with pytest.raises(DataError, match=r"at least 20 good pictures.* got 19; add pictures, or use --method fyd"):
        hold_out(pictures(19))


def test_thresholds_are_those_of_the_scores_taken_in():
    grids = np.random.default_rng(0).gamma(3, size=(30, 6, 5)).astype(np.float32)
    head = MapHead((6, 5), 24, 20, 1.5)
    held_out = HeldOut(head)
    for part in np.split(grids, 3):
        held_out.add(part)
    scores, maps = head(grids)
    pixels = PixelScores()
    pixels.add(maps)
    assert held_out.calibration(1, 0.1) == calibrate(scores, pixels, folds=1, target_fpr=0.1)
