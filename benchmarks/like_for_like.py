"""Our detector in the size that anomalib's PaDiM has by default: ResNet-18, 100 channels, 256 px.

Its weights are random: speed does not depend on them, and ImageNet's are a download.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.harness import Context
from engine import bundle as bundles
from engine.bundle import Bundle
from engine.contract import MANIFEST_NAME
from trainers import backbones
from trainers.base import TrainOptions
from trainers.fyd import Fyd
from trainers.fyd.settings import Settings
from trainers.progress import on_stderr

SIDE_PX = 256
CHANNELS = 100


def bundle(context: Context, data: Path, stride_px: int) -> Bundle:
    """The bundle with a position every `stride_px` pixels, trained on good pictures once and kept in `work`."""
    out = context.work / "bundles" / f"resnet18-{stride_px}px"
    if not (out / MANIFEST_NAME).is_file():
        weights = context.folder("weights") / "resnet18-random.safetensors"
        torch.manual_seed(0)
        save_file(backbones.build("resnet18", SIDE_PX).state_dict(), weights)
        settings = Settings(
            backbone=f"resnet18={weights}", side_px=SIDE_PX, channels=CHANNELS, grid_stride_px=stride_px
        )
        Fyd(settings).train(TrainOptions(data=data, out=out, threads=context.threads), on_stderr())
    return bundles.read(out)
