"""Which targets there are. Every one is named here; the command line and the tests go through this table."""

from __future__ import annotations

from engine.errors import UsageError
from engine.export.base import Target
from engine.export.onnx import OnnxTarget
from engine.export.openvino import OpenvinoTarget
from engine.export.tensorrt import TensorrtTarget
from engine.export.triton import TritonTarget

_TARGETS: dict[str, Target] = {
    target.name: target for target in (OnnxTarget(), OpenvinoTarget(), TensorrtTarget(), TritonTarget())
}


def get(name: str) -> Target:
    """Raises UsageError naming those there are."""
    if name not in _TARGETS:
        raise UsageError(f"--target {name}: unknown; choose one of {', '.join(_TARGETS)}")
    return _TARGETS[name]


def names() -> tuple[str, ...]:
    """All targets."""
    return tuple(_TARGETS)
