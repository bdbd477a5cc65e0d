"""Every error the engine raises on purpose, as one tree.

    EngineError                    something a person or a program can act on
    |-- UsageError                 wrong arguments, files or settings: exit 2
    |   |-- ConfigError            engine.toml: unknown key, wrong type
    |   |-- DataError              a training or test folder that cannot be used
    |   |-- BundleError            a bundle that is missing, damaged, too new
    |   `-- MissingExtraError      an optional dependency that is not installed
    |-- FrameError                 one frame that cannot be processed -> a dead letter
    |   |-- ContractError          `contract`: the entry breaks the wire contract
    |   |-- DecodeError            `decode`: the picture is truncated or corrupt
    |   |-- TooLargeError          `too_large`
    |   |-- TooSmallError          `too_small`
    |   `-- InferenceError         `inference`: the model failed on this frame
    |-- StreamError                Redis: refused, wrong type, gone
    |   `-- AwayError              the server cannot be reached now: wait and try again
    `-- BackendError               a runtime that cannot load or run a model
        `-- BackendAwayError       a model server that cannot be reached now: wait and try again

Foreign errors (redis-py, OpenCV, ONNX Runtime, OpenVINO, tritonclient) are translated into these where they enter.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of all deliberate errors; the message says what, where, expected, got and what to do."""


class UsageError(EngineError):
    """Wrong usage or input: the command line exits with 2."""


class ConfigError(UsageError):
    """A configuration file or flag that is not understood."""


class DataError(UsageError):
    """A folder of pictures that cannot be trained on or evaluated."""


class BundleError(UsageError):
    """A model bundle that is missing, damaged, or of a newer schema."""


class MissingExtraError(UsageError):
    """A command that needs an optional part which is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'anomaly-engine[{extra}]'")
        self.extra = extra


class FrameError(EngineError):
    """One frame that cannot be processed; `type` is the dead letter's `type` on the wire."""

    type: ClassVar[str]


class ContractError(FrameError):
    """The stream entry breaks the wire contract."""

    type = "contract"


class DecodeError(FrameError):
    """The picture is truncated, corrupt, or no picture."""

    type = "decode"


class TooLargeError(FrameError):
    """More pixels or bytes than the line allows."""

    type = "too_large"


class TooSmallError(FrameError):
    """Smaller than 16 x 16 pixels."""

    type = "too_small"


class InferenceError(FrameError):
    """The model failed on this frame while it ran alone."""

    type = "inference"


class StreamError(EngineError):
    """The stream server refused or failed an operation."""


class AwayError(StreamError):
    """The stream server cannot be reached or does not serve now; nothing is wrong with what was asked."""


class BackendError(EngineError):
    """A runtime that cannot load or run a model."""


class BackendAwayError(BackendError):
    """A model server that cannot be reached now, or does not serve the bundle yet; nothing is wrong with the frame."""
