"""A line's cameras: each on its own, told once in the log, shown at a scrape, bounded in number."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from engine.config import Drift as Settings
from engine.drift import Gauges, Monitor, Reference
from engine.drift.monitor import MAX_CAMERAS
from engine.drift.reference import SIGNALS


@pytest.fixture
def monitor():
    draw = np.random.default_rng(0)
    reference = Reference({name: np.sort(draw.normal(10, 1, 100)) for name in SIGNALS}, (64, 64))
    return Monitor("line1", reference, 13.0, Settings(window=64))


def show(monitor, camera, frames, **shifts):
    """Good frames, some signals shifted; what is said of the last one."""
    draw = np.random.default_rng(1)
    for _ in range(frames):
        values = draw.normal(10, 1, len(SIGNALS)) + [shifts.get(name, 0.0) for name in SIGNALS]
        found = monitor.observe(camera, values[1:], values[0])
    return found


def test_begin_and_end_are_logged_once_each_with_what_changed(monitor, caplog):
    caplog.set_level("INFO")
    assert show(monitor, "cam1", 200) is None
    assert show(monitor, "cam1", 200, brightness=-4.0).signals == ("brightness",)
    assert show(monitor, "cam1", 200) is None
    begin, end = [record.getMessage() for record in caplog.records]
    assert begin.startswith("line1 cam1: drift begins: the last 64 frames")
    assert "brightness lower" in begin
    assert end.startswith("line1 cam1: drift ends")


def test_higher_scores_say_what_they_cost(monitor):
    found = show(monitor, "cam1", 100, score=3.0)
    assert found.signals == ("score",)
    assert found.false_alarm_rate == pytest.approx(0.5, abs=0.15)  # the threshold is 3 above the mean


def test_a_camera_says_nothing_of_another(monitor):
    show(monitor, "dark", 100, brightness=-4.0)
    assert show(monitor, "bright", 100) is None
    assert {name: look.drifting for name, look in monitor.looks().items()} == {"dark": ("brightness",), "bright": ()}


def test_camera_names_cannot_grow_without_bound_and_the_log_says_so_once(monitor, caplog):
    for i in range(MAX_CAMERAS + 5):
        show(monitor, f"cam{i}", 1)
    assert show(monitor, "late", 200, brightness=-4.0) is None
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [f"line1 cam{MAX_CAMERAS}"]


def test_a_scrape_sees_signals_distances_and_the_rate(monitor):
    registry = CollectorRegistry()
    registry.register(Gauges(lambda: [monitor]))
    camera = {"line": "line1", "camera": "cam1"}
    show(monitor, "cam1", 63)
    assert registry.get_sample_value("engine_false_alarm_rate", camera) is None
    show(monitor, "cam1", 100, brightness=-4.0)
    assert registry.get_sample_value("engine_drift", {**camera, "signal": "brightness"}) == 1
    assert registry.get_sample_value("engine_drift", {**camera, "signal": "sharpness"}) == 0
    assert registry.get_sample_value("engine_drift_distance", {**camera, "signal": "brightness"}) < -0.5
    assert 0 <= registry.get_sample_value("engine_false_alarm_rate", camera) < 0.1
