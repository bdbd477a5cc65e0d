"""Lets torchvision import beside a torch that it was not compiled for; import it before anomalib.

PyPI's torchvision is built for CUDA torch. Next to a CPU torch its C++ operators do not load, and declaring the shapes
of two of them fails at import. PaDiM uses neither, so naming them is enough.
"""

# mypy: ignore-errors
# It runs in the peer's environment, whose packages are not installed in ours.
from __future__ import annotations

import torch

try:
    import torchvision
except RuntimeError:
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

VERSION = torchvision.__version__
