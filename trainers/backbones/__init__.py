"""Pretrained backbones: three feature levels at strides 4, 8 and 16 of a picture normalised inside the network.

`load("resnet18", 224)` gives one with ImageNet weights; `load("resnet18=FILE.pth", 224)` takes them from a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError
from trainers.backbones import weights
from trainers.backbones.base import STRIDES, Backbone
from trainers.backbones.efficientnet import EfficientNetLite0
from trainers.backbones.resnet import resnet18, wide_resnet50_2

__all__ = ["DEFAULT", "SOURCES", "STRIDES", "Backbone", "Source", "build", "load"]

DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True, slots=True)
class Source:
    """How a backbone is built for a picture side, and where its weights come from (no address: a package)."""

    build: Callable[[int], Backbone]
    url: str | None


SOURCES = {
    "efficientnet_lite0": Source(EfficientNetLite0, None),
    "resnet18": Source(resnet18, "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
    "wide_resnet50_2": Source(wide_resnet50_2, "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth"),
}


def build(name: str, side_px: int) -> Backbone:
    """A backbone with random weights, in evaluation mode, for square pictures of `side_px`.

    Raises UsageError for an unknown name or a side that is not a multiple of 16.
    """
    if name not in SOURCES:
        raise UsageError(f"--backbone {name}: unknown; choose one of {', '.join(SOURCES)}")
    if side_px % STRIDES[-1] or side_px < 2 * STRIDES[-1]:
        raise UsageError(f"--image-size {side_px}: expected a multiple of {STRIDES[-1]} from {2 * STRIDES[-1]} up")
    return SOURCES[name].build(side_px).eval()


def load(spec: str, side_px: int, *, allow_download: bool = False, folder: Path | None = None) -> Backbone:
    """The backbone of `NAME` or `NAME=FILE` with its weights; `folder` is the download cache, torchvision's by default.

    Raises UsageError (or MissingExtraError) where the weights cannot be had, saying how to get them.
    """
    name, _, file = spec.partition("=")
    backbone = build(name, side_px)
    path = Path(file) if file else _find(name, folder or weights.cache_folder(), allow_download)
    weights.load_into(backbone, path, backbone.unused_prefixes)
    return backbone


def _find(name: str, folder: Path, allow_download: bool) -> Path:
    url = SOURCES[name].url
    if url is None:
        return weights.packaged_lite0()
    return weights.downloaded(url, folder, allow_download=allow_download)
