"""One camera by simulation: how often chance begins a drift, how soon a real one is seen, what defects do."""

from __future__ import annotations

import numpy as np
import pytest

from engine.config import Drift as Settings
from engine.drift.camera import Camera, rule_of
from engine.drift.reference import SIGNALS, Reference

SIZE = (64, 64)
OFTEN = Settings(window=64, false_signals_per_million=2000.0)  # so that a simulation can see it


def reference(draw, n: int) -> Reference:
    return Reference({name: np.sort(draw.gamma(4.0, size=n)) for name in SIGNALS}, SIZE)


def begins(camera: Camera, frames: np.ndarray) -> int:
    """How many drifts begin while these frames come."""
    count, before = 0, False
    for values in frames:
        camera.add(values)
        now = camera.last is not None and bool(camera.last.drifting)
        count += now and not before
        before = now
    return count


@pytest.mark.parametrize("n", [20, 200])
def test_good_frames_like_the_training_s_begin_drifts_no_more_often_than_stated(n):
    draw = np.random.default_rng(n)
    cameras, frames = 60, 2000
    found = [
        begins(Camera(rule_of(reference(draw, n), 12.0, OFTEN)), draw.gamma(4.0, size=(frames, len(SIGNALS))))
        for _ in range(cameras)
    ]
    bound = OFTEN.false_signals_per_million * cameras * frames / 1e6
    assert sum(found) <= bound + 3 * bound**0.5


@pytest.mark.parametrize("signal", range(len(SIGNALS)))
def test_a_shift_of_any_signal_is_seen_within_a_window_and_its_end_too(signal):
    draw = np.random.default_rng(signal)
    camera = Camera(rule_of(reference(draw, 200), 12.0, Settings()))
    good = draw.gamma(4.0, size=(1024, len(SIGNALS)))
    shifted = draw.gamma(4.0, size=(256, len(SIGNALS)))
    shifted[:, signal] += 3.0
    assert begins(camera, good) == 0
    assert begins(camera, shifted) == 1
    assert camera.last.drifting == (SIGNALS[signal],)
    assert camera.last.distances[SIGNALS[signal]] > 0.3
    begins(camera, good[:512])
    assert camera.last.drifting == ()
    assert camera.last.drift is None


def test_as_many_defects_as_are_tolerated_change_nothing():
    """Whatever good frames would show, a share of outliers moves the distance by no more than itself."""
    draw = np.random.default_rng(7)
    camera = Camera(rule_of(reference(draw, 500), 12.0, Settings()))
    frames = draw.gamma(4.0, size=(4096, len(SIGNALS)))
    frames[::50] = 1e6
    assert begins(camera, frames) == 0


def test_before_the_window_is_full_nothing_is_said():
    camera = Camera(rule_of(reference(np.random.default_rng(0), 50), 12.0, Settings(window=32)))
    assert not any(camera.add(np.full(len(SIGNALS), 1e6)) for _ in range(31))
    assert camera.add(np.full(len(SIGNALS), 1e6))
    assert set(camera.last.drifting) == set(SIGNALS)
    assert camera.last.false_alarm_rate == 1.0
