"""The parts of a bundle's manifest that are the same for every method."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import msgspec

from engine import __version__
from engine.contract import Ensemble, Executable, Precision

_LIBRARIES = ("torch", "onnxruntime", "numpy", "opencv-python")
_VERSION_DIGITS = 12


def name_of(out: Path) -> str:
    """A bundle's name: that of its folder, in the alphabet of names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", out.resolve().name)[:64] or "model"


def version_of(executables: Mapping[Precision, Executable] | Mapping[Precision, Ensemble]) -> str:
    """A bundle's version: a digest of its files and thresholds, so equal models have equal versions."""
    return hashlib.sha256(msgspec.json.encode(executables, order="deterministic")).hexdigest()[:_VERSION_DIGITS]


def versions() -> dict[str, str]:
    """Of the libraries that shape a bundle's bytes."""
    return {"anomaly-engine": __version__} | {name: metadata.version(name) for name in _LIBRARIES}
