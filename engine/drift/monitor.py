"""The cameras of one line, each watched for drift; beginnings and ends are logged once."""

from __future__ import annotations

import logging
import threading

import numpy as np

from engine.config import Drift as Settings
from engine.drift.camera import Camera, Look, rule_of
from engine.drift.reference import Reference
from engine.types import F64, Drift

log = logging.getLogger(__name__)

MAX_CAMERAS = 256  # names come from producers, and each has a window


class Monitor:
    """Belongs to one model on one line: a model that takes its place begins with empty windows.

    `threshold` is the raw score from which a frame is rejected. Every method may be called from any thread.
    """

    def __init__(self, line: str, reference: Reference, threshold: float, settings: Settings) -> None:
        self.line = line
        self.size = reference.size
        self._rule = rule_of(reference, threshold, settings)
        self._cameras: dict[str, Camera] = {}
        self._lock = threading.Lock()
        self._full = False

    def observe(self, camera: str, appearance: F64, score: float) -> Drift | None:
        """Take in a judged frame, `appearance` (4,) of `engine.appearance`; what drifts on its camera now."""
        with self._lock:
            window = self._cameras.get(camera)
            if window is None:
                if len(self._cameras) >= MAX_CAMERAS:
                    self._tell_full(camera)
                    return None
                window = self._cameras[camera] = Camera(self._rule)
            before = window.last
            if window.add(np.concatenate(([score], appearance))) and window.last is not None:
                self._tell(camera, before, window.last)
            return None if window.last is None else window.last.drift

    def looks(self) -> dict[str, Look]:
        """The last look at each camera whose window has been full."""
        with self._lock:
            return {name: window.last for name, window in self._cameras.items() if window.last is not None}

    def _tell_full(self, camera: str) -> None:
        if not self._full:
            log.warning(
                "%s %s: not watched for drift, nor is any further camera: %d are watched already",
                *(self.line, camera, MAX_CAMERAS),
            )
        self._full = True

    def _tell(self, camera: str, before: Look | None, now: Look) -> None:
        drifted = before is not None and bool(before.drifting)
        if now.drifting and not drifted:
            log.warning(
                "%s %s: drift begins: the last %d frames do not look like the training pictures (%s); "
                "about %.2g %% of good frames are rejected now",
                *(self.line, camera, self._rule.window, self._explain(now), 100 * now.false_alarm_rate),
            )
        elif drifted and not now.drifting:
            log.warning("%s %s: drift ends: frames look like the training pictures again", self.line, camera)

    def _explain(self, look: Look) -> str:
        return "; ".join(
            f"{name} {'higher' if look.distances[name] > 0 else 'lower'}: median {look.medians[name]:.4g}, "
            f"in training {np.median(self._rule.reference.signals[name]):.4g}"
            for name in look.drifting
        )
