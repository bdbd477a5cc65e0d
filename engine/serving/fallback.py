"""A model server first, this process where it is away."""

from __future__ import annotations

import logging
import time

from engine.errors import BackendAwayError
from engine.serving.base import Predictor, RawBatch
from engine.types import U8

log = logging.getLogger(__name__)

_AGAIN_S = 1.0


class FallbackPredictor:
    """A `Predictor` of the same bundle in two places; the server is tried again every second while it is away."""

    def __init__(self, server: Predictor, local: Predictor) -> None:
        self._server = server
        self._local = local
        self._again_s = 0.0  # monotonic time from which the server is tried
        self.precision = server.precision

    @property
    def backend(self) -> str:
        """See `Predictor.backend`."""
        return f"{self._server.backend}, else {self._local.backend}"

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`."""
        now_s = time.monotonic()
        if now_s >= self._again_s:
            try:
                raw = self._server.predict(images)
            except BackendAwayError as error:
                self._note_away(error, now_s)
            else:
                self._note_back()
                return raw
        return self._local.predict(images)

    def close(self) -> None:
        """See `Predictor.close`."""
        self._server.close()
        self._local.close()

    def _note_away(self, error: BackendAwayError, now_s: float) -> None:
        if not self._again_s:
            log.warning("%s takes over: %s", self._local.backend, error)
        self._again_s = now_s + _AGAIN_S

    def _note_back(self) -> None:
        if self._again_s:
            log.warning("%s is back", self._server.backend)
        self._again_s = 0.0
