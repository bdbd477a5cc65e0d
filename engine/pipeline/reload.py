"""The thread that swaps a line's bundle for one that takes its place, while frames flow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from engine.config import Config
from engine.errors import BackendAwayError, EngineError
from engine.pipeline import lines
from engine.pipeline.job import Watch
from engine.pipeline.lines import Loaded, Stamp
from engine.pipeline.pipeline import Pipeline
from engine.serving.base import Predictor

log = logging.getLogger(__name__)

_DRAIN_POLL_S = 0.1


class Reloader:
    """Looks every `runtime.reload_ms` (0: never by itself) and at `look` whether bundles have been replaced.

    A new bundle is read, loaded and warmed up beside the old one; then its lines are swapped, and the old one is closed
    when the last frame that began with it has ended. One that cannot be used is told once and changes nothing. As a
    context manager it closes all models at the end.
    """

    def __init__(self, loaded: Sequence[Loaded], config: Config, pipeline: Pipeline) -> None:
        self._loaded = list(loaded)
        self._config = config
        self._pipeline = pipeline
        self._unusable: dict[str, Stamp | None] = {}
        self._told: dict[str, Stamp | None] = {}
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="reloader", daemon=True)

    def look(self) -> None:
        """Look now; may be called from a signal handler."""
        self._unusable.clear()
        self._told.clear()
        self._wake.set()

    def __enter__(self) -> Reloader:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join()
        for loaded in self._loaded:
            loaded.predictor.close()

    def _loop(self) -> None:
        period_s = self._config.runtime.reload_ms / 1e3 or None
        while not self._stopped:
            self._wake.wait(period_s)
            self._wake.clear()
            for i, loaded in enumerate(self._loaded):
                if not self._stopped and lines.replaced(loaded):
                    self._loaded[i] = self._swapped(loaded)

    def _swapped(self, old: Loaded) -> Loaded:
        """What is in its place from now on: the new bundle, or the old one still."""
        stamp = lines.stamp_of(old.path)
        if self._unusable.get(old.path) == stamp:
            return old
        try:
            new, watches = self._loaded_again(old)
        except (EngineError, OSError) as error:
            self._keep(old, stamp, error)
            return old
        if new.predictor is not old.predictor:
            for watch in watches:
                self._pipeline.swap(watch)
            log.warning("%s: %s takes the place of %s", ", ".join(new.lines), new.model, old.model)
            self._retire(old.predictor)
        return new

    def _loaded_again(self, old: Loaded) -> tuple[Loaded, list[Watch]]:
        """The new bundle and its lines, whose own thresholds it may not go with."""
        new = lines.load_again(old, self._config)
        try:
            return new, new.watches(self._config)
        except EngineError:
            if new.predictor is not old.predictor:
                new.predictor.close()
            raise

    def _keep(self, old: Loaded, stamp: Stamp | None, error: Exception) -> None:
        """Say once why the old bundle stays; only what waits for its server is tried again by itself."""
        if not isinstance(error, BackendAwayError):
            self._unusable[old.path] = stamp
        if self._told.get(old.path) != stamp:
            self._told[old.path] = stamp
            log.error("%s: stays with %s: %s", ", ".join(old.lines), old.model, error)

    def _retire(self, predictor: Predictor) -> None:
        """Close a model once no frame needs it."""
        while self._pipeline.in_use(predictor) and not self._stopped:
            time.sleep(_DRAIN_POLL_S)
        predictor.close()
