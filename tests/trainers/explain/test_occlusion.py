"""Occlusion against a naive loop over windows."""

from __future__ import annotations

import numpy as np

from engine.serving.base import ConstantPredictor
from trainers.explain.baseline import baseline
from trainers.explain.occlusion import occlusion
from trainers.progress import RecordedProgress


def naive(ask, picture, other, window, stride):
    """Of every pixel, the mean change over the windows that cover it."""
    height, width = picture.shape[:2]
    change, covered = np.zeros((2, height, width))
    here = ask(picture[None])[0]
    for top in range(0, height - window + stride, stride):
        for left in range(0, width - window + stride, stride):
            place = slice(top, top + window), slice(left, left + window)
            changed = picture.copy()
            changed[place] = other[place]
            change[place] += here - ask(changed[None])[0]
            covered[place] += 1
    return change / covered


def test_equals_a_naive_loop(small, spotted):
    other, progress = baseline("black", spotted), RecordedProgress()
    found = occlusion(small.question.ask, spotted, other, progress)
    assert (found.window_px, found.stride_px) == (8, 4)
    want = naive(small.question.ask, spotted, other, 8, 4)
    np.testing.assert_allclose(found.values, want, rtol=1e-4, atol=1e-4)
    assert progress.advances[-1][:2] == ("occlusion", 15 * 15 + 1)


def test_pictures_that_windows_do_not_divide_are_covered():
    """They need not be square either: the last windows are cut off at the edge."""
    picture = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)

    def ask(images):
        return ConstantPredictor().predict(images).maps[:, 20, 12].astype(np.float64)

    other = baseline("black", picture)
    found = occlusion(ask, picture, other, RecordedProgress())
    assert (found.window_px, found.stride_px) == (4, 2)
    np.testing.assert_allclose(found.values, naive(ask, picture, other, 4, 2), rtol=1e-4, atol=1e-5)
    assert (found.values[20, 12] > 0) == (picture[20, 12].sum() > 0)


def test_it_finds_what_decided(small, spotted):
    found = occlusion(small.question.ask, spotted, baseline("black", spotted), RecordedProgress())
    y, x = np.unravel_index(np.abs(found.values).argmax(), found.values.shape)
    assert 16 <= y < 32
    assert 24 <= x < 40
