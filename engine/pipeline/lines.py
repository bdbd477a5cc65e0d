"""The bundles of a configuration's lines, loaded, and loaded again when another stands in their place."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.config import Config, Line, Runtime
from engine.contract import MANIFEST_NAME, Calibration
from engine.decide import with_thresholds
from engine.drift import Monitor, reference
from engine.errors import ConfigError, EngineError
from engine.interest import Interest
from engine.pipeline.job import Watch
from engine.serving.base import Predictor
from engine.serving.ensemble import Cascade
from engine.serving.select import choose_precision, open_cascade, open_predictor

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle that lines share, with its model and its batches; `stamp` tells another in its place.

    `interests` are the lines' regions of interest, which do not change when the bundle does.
    """

    path: str
    lines: tuple[str, ...]
    bundle: Bundle
    predictor: Predictor
    stamp: Stamp | None
    interests: Mapping[str, Interest]

    @property
    def model(self) -> str:
        """NAME@VERSION."""
        return self.bundle.manifest.model

    def watches(self, config: Config) -> list[Watch]:
        """Its lines, watched by it."""
        return [self._watch(line, config) for line in config.line if line.name in self.lines]

    def _watch(self, line: Line, config: Config) -> Watch:
        bundle, precision = self.bundle, choose_precision(config.runtime)
        calibration = thresholds(line, bundle.calibration(precision))
        cascade = _cascade(line, bundle, self.predictor, config.runtime, calibration)
        return Watch(
            line=line.name,
            model=self.model,
            method=bundle.manifest.method,
            predictor=self.predictor,
            calibration=calibration,
            sheet=bundle.sheet,
            members=bundle.calibrations(precision),
            cascade=cascade,
            interest=self.interests.get(line.name),
            drift=_drift(line, bundle, config, calibration, cascade),
        )


def load_all(config: Config) -> list[Loaded]:
    """Load every line's bundle; raises UsageError or BackendError where one cannot be."""
    lines: dict[str, list[str]] = {}
    for line in config.line:
        lines.setdefault(os.path.abspath(line.bundle), []).append(line.name)
    interests = {line.name: Interest(line.region) for line in config.line if line.region}
    return [
        _open(bundles.read(path), path, tuple(names), stamp_of(path), config, interests)
        for path, names in lines.items()
    ]


def replaced(loaded: Loaded) -> bool:
    """Whether another bundle may stand in its place now; not while nothing stands there."""
    return stamp_of(loaded.path) not in (None, loaded.stamp)


def load_again(loaded: Loaded, config: Config) -> Loaded:
    """What stands in its place, on the same backend and warmed up; with the same predictor where nothing has changed.

    Raises UsageError or BackendError where it cannot be used; BackendAwayError where its server does not serve it yet.
    """
    stamp = stamp_of(loaded.path)
    bundle = bundles.read(loaded.path)
    if bundle.manifest == loaded.bundle.manifest:
        return replace(loaded, stamp=stamp)
    again = _open(bundle, loaded.path, loaded.lines, stamp, _same_backend(config, loaded.predictor), loaded.interests)
    try:
        again.predictor.predict(np.zeros((1, bundle.sheet.height, bundle.sheet.width, 3), np.uint8))
    except EngineError:
        again.predictor.close()
        raise
    return again


def stamp_of(path: str) -> Stamp | None:
    """What tells a bundle from one that takes its place; None where none stands there."""
    try:
        found = os.stat(Path(path) / MANIFEST_NAME)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _open(
    bundle: Bundle,
    path: str,
    lines: tuple[str, ...],
    stamp: Stamp | None,
    config: Config,
    interests: Mapping[str, Interest],
) -> Loaded:
    predictor = open_predictor(bundle, config.runtime, config.batch.max_size, config.triton)
    for line in lines:
        log.info("%s: %s on %s %s", line, bundle.manifest.model, predictor.backend, predictor.precision)
    return Loaded(path, lines, bundle, predictor, stamp, interests)


def thresholds(line: Line, calibration: Calibration) -> Calibration:
    """The bundle's, or what the line has in their place; raises ConfigError where these are in the wrong order."""
    try:
        return with_thresholds(calibration, line.review, line.reject)
    except ValueError as error:
        raise ConfigError(f"line {line.name}: {error}; see docs/operating.md") from None


def _cascade(
    line: Line, bundle: Bundle, predictor: Predictor, runtime: Runtime, calibration: Calibration
) -> Cascade | None:
    """The line's cascade, if there is one; what it promises is logged."""
    cascade = open_cascade(bundle, predictor, runtime, calibration)
    if cascade is not None:
        limit = cascade.limit
        log.info(
            "%s: cascade, disagreement with the full ensemble bound to %g (%s, on %d good frames)",
            *(line.name, limit.bound, limit.how, limit.n),
        )
    return cascade


def _drift(
    line: Line, bundle: Bundle, config: Config, calibration: Calibration, cascade: Cascade | None
) -> Monitor | None:
    """What watches the line for drift, where that is wanted and the bundle says what was trained on."""
    if not config.drift.enabled:
        return None
    limit = None if cascade is None else cascade.limit
    found = reference.read(bundle, choose_precision(config.runtime), limit)
    if found is None:
        log.info(
            "%s: drift is not watched: %s keeps no training reference; train it again", line.name, bundle.manifest.model
        )
        return None
    return Monitor(line.name, found, calibration.image.threshold, config.drift)


def _same_backend(config: Config, predictor: Predictor) -> Config:
    """The configuration with the backend that `auto` chose: nothing is measured while frames flow."""
    if config.runtime.backend != "auto":
        return config
    runtime = msgspec.convert(msgspec.to_builtins(config.runtime) | {"backend": predictor.backend}, Runtime)
    return msgspec.structs.replace(config, runtime=runtime)
