"""anomaly-engine: streaming visual anomaly detection, trained on good images only.

`engine.load(BUNDLE).predict(images)` judges pictures in Python; the `engine` command does everything else. The names
below are loaded on first use, so that `import engine.contract` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import Model, load
    from engine.types import Region, Result

__all__ = ["Model", "Region", "Result", "__version__", "load"]

__version__ = "0.1.0"

_HOMES = {"Model": "engine.api", "load": "engine.api", "Region": "engine.types", "Result": "engine.types"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
