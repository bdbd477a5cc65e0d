"""Integrated gradients add up, and are those of an independent computation in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine.maps import operator
from trainers import registry
from trainers.explain.baseline import baseline
from trainers.explain.gradients import GAP, integrated_gradients
from trainers.progress import RecordedProgress


def by_midpoints(tiny, pictures, place, picture, other, steps=4000):
    """The integral for the small bundle's one place, from its definition: features are linear in the pixels."""
    train = tiny.features(pictures)
    mean = train.mean(axis=0)
    weights = np.outer(operator(8, 64, 2.0)[place[1]], operator(8, 64, 2.0)[place[0]])  # (h, w) of the place's value
    inverses = np.empty((8, 8, 4, 4))
    for i, j in np.ndindex(8, 8):
        inverses[i, j] = np.linalg.inv(np.cov(train[:, :, i, j].T) + 0.01 * np.eye(4))
    start, end = (tiny.features(image[None])[0].astype(np.float64) for image in (other, picture))
    by_feature = np.zeros((4, 8, 8))
    for alpha in (np.arange(steps) + 0.5) / steps:
        y = start + alpha * (end - start) - mean
        pulled = np.einsum("hwcd,dhw->chw", inverses, y)
        by_feature += weights * pulled / np.sqrt((y * pulled).sum(axis=0)) / steps
    by_pixel = np.einsum("khw,kc->hwc", by_feature, tiny.mix[:, :, 0, 0]).repeat(8, 0).repeat(8, 1) / 64
    return by_pixel * (picture.astype(np.float64) - other)


def test_equals_the_definition(tiny, pictures, spotted, small):
    other = baseline("blur", spotted)
    found = integrated_gradients(small.question, spotted, other, 256, RecordedProgress())
    want = by_midpoints(tiny, pictures, small.question.place, spotted, other)
    np.testing.assert_allclose(found.values, want, rtol=2e-2, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("method", registry.names())
def test_attributions_add_up_for_every_method(method, trained, ask, notched):
    """Completeness, with scores of the served model, not of the one that was differentiated."""
    case = ask(trained(method).bundle, notched)
    other = baseline("blur", notched)
    found = integrated_gradients(case.question, notched, other, 256, RecordedProgress())
    here, there = case.question.ask(np.stack([notched, other]))
    assert found.complete
    assert abs(found.values.sum(dtype=np.float64) - (here - there)) <= 1.1 * GAP * max(abs(here - there), 1.0)
    assert found.difference == pytest.approx(here - there, abs=1e-3 * max(abs(here - there), 1.0))


def test_steps_double_until_they_suffice(small, spotted):
    """A baseline on the other side of the mean, so that the way has a bend."""
    progress = RecordedProgress()
    found = integrated_gradients(small.question, spotted, np.full_like(spotted, 10), 1000, progress)
    tried = list(dict.fromkeys(int(name.split()[2]) for name, _, _ in progress.advances))
    assert tried[0] == 32
    assert tried[-1] == found.steps
    assert all(b == 2 * a for a, b in pairwise(tried))
    done = [steps for name, steps, _ in progress.advances if name.split()[2] == str(found.steps)]
    assert done[-1] == found.steps


def test_what_is_missed_is_said(small, spotted):
    """A baseline on the other side of the mean bends the way: one step is not enough."""
    other = np.full_like(spotted, 10)
    found = integrated_gradients(small.question, spotted, other, 1, RecordedProgress())
    assert not found.complete
    assert found.gap == pytest.approx(abs(found.values.sum(dtype=np.float64) - found.difference))
