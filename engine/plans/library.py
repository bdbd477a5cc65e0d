"""Which TensorRT there is: the full one, or TensorRT-RTX, whose Python interface is the same where it is used here.

The full one is preferred where both are installed: it serves every NVIDIA device, and Triton loads its plans.
TensorRT-RTX (PyPI `tensorrt-rtx`) serves GeForce and RTX devices, and builds where there is none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from engine.errors import BackendError, MissingExtraError

log = logging.getLogger(__name__)

BuilderName = Literal["tensorrt", "tensorrt_rtx"]
_PREFERRED: tuple[BuilderName, ...] = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class Library:
    """An installed TensorRT: its Python module, and the logger that its objects write to."""

    name: BuilderName
    version: str
    module: Any
    logger: Any


def find(name: BuilderName | None = None) -> Library:
    """The installed TensorRT, or a certain one; raises MissingExtraError where it is not there.

    Raises BackendError where the package is there and does not load.
    """
    for candidate in (name,) if name else _PREFERRED:
        if (module := _module(candidate)) is not None:
            return Library(candidate, str(module.__version__), module, _logger(module))
    if name == "tensorrt":
        raise BackendError("tensorrt: not installed; pip install tensorrt (on a machine with an NVIDIA GPU)")
    raise MissingExtraError("TensorRT (neither tensorrt nor tensorrt-rtx is installed)", "tensorrt")


def available() -> bool:
    """Whether any is installed and loads."""
    try:
        find()
    except (MissingExtraError, BackendError):
        return False
    return True


def _module(name: BuilderName) -> Any | None:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None
    except (ImportError, OSError, RuntimeError) as error:  # its shared libraries
        raise BackendError(f"{name}: installed, but does not load ({error}); install it again") from error


def _logger(module: Any) -> Any:
    """TensorRT's messages through `logging`: its information is our debugging."""
    levels = {
        module.ILogger.INTERNAL_ERROR: logging.ERROR,
        module.ILogger.ERROR: logging.ERROR,
        module.ILogger.WARNING: logging.WARNING,
        module.ILogger.INFO: logging.DEBUG,
        module.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(module.ILogger):  # type: ignore[misc]
        """One line each, and the last error kept: TensorRT returns None and logs why."""

        def __init__(self) -> None:
            super().__init__()
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            level = levels[severity]
            if level == logging.ERROR:
                self.last_error = " ".join(message.split())
            log.log(min(level, logging.WARNING), "%s: %s", module.__name__, message)

    return Logger()
