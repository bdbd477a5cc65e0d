"""Drift as Prometheus metrics, read off the monitors at a scrape: a frame costs nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from engine.drift.monitor import Monitor


class Gauges(Collector):
    """Gauges of the monitors that are in force; a camera has some once its window was full."""

    def __init__(self, monitors: Callable[[], Iterable[Monitor]]) -> None:
        self._monitors = monitors

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What prometheus-client asks for at a scrape."""
        labels = ["line", "camera"]
        drift = GaugeMetricFamily("engine_drift", "1 while a signal drifts", labels=[*labels, "signal"])
        distance = GaugeMetricFamily(
            "engine_drift_distance", "Kolmogorov-Smirnov distance to the training, signed", labels=[*labels, "signal"]
        )
        rate = GaugeMetricFamily("engine_false_alarm_rate", "Estimated share of good frames rejected", labels=labels)
        for monitor in self._monitors():
            for camera, look in monitor.looks().items():
                rate.add_metric([monitor.line, camera], look.false_alarm_rate)
                for signal, value in look.distances.items():
                    drift.add_metric([monitor.line, camera, signal], float(signal in look.drifting))
                    distance.add_metric([monitor.line, camera, signal], value)
        yield from (drift, distance, rate)
