"""Occlusion (Zeiler and Fergus 2014): what the served model says when a window of the picture is taken away.

It asks the model itself and needs no gradient, so it checks the other explanations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import Occlusion as Windows
from torch import Tensor

from engine.types import F32, F64, U8
from trainers.explain.question import as_batch
from trainers.progress import Progress

WINDOWS_A_SIDE = 8  # of the shorter side; they overlap by half
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Occlusion:
    """`values` (H, W), in units of the raw score: how much lower it is, over the windows that cover a pixel on average,
    where the window shows the baseline."""

    values: F32
    window_px: int
    stride_px: int


def occlusion(ask: Callable[[U8], F64], picture: U8, baseline: U8, progress: Progress) -> Occlusion:
    """Slide a window of the baseline over a picture (H, W, 3); `ask` scores (N, H, W, 3)."""
    window_px = max(min(picture.shape[:2]) // WINDOWS_A_SIDE, 2)
    stride_px = window_px // 2
    sides = [-(-max(side - window_px, 0) // stride_px) + 1 for side in picture.shape[:2]]

    with progress.task("occlusion", sides[0] * sides[1] + 1) as task:  # and the picture as it is

        def forward(images: Tensor) -> Tensor:
            answers = ask(images.numpy().astype(np.uint8))
            task.advance(len(images))
            return torch.from_numpy(answers)

        found = Windows(forward).attribute(
            as_batch(picture),
            sliding_window_shapes=(window_px, window_px, 3),
            strides=(stride_px, stride_px, 3),
            baselines=as_batch(baseline),
            perturbations_per_eval=_BATCH,
        )
    return Occlusion(found[0, :, :, 0].numpy().astype(np.float32), window_px, stride_px)
