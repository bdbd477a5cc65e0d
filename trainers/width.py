"""What this machine trains on, and how wide the networks are that learn from scratch in reasonable time there."""

from __future__ import annotations

import torch

from trainers.base import Width

_FEWEST = 8  # with fewer, oneDNN 3.12's strided 1 x 1 convolutions get wrong gradients and break the heap (AVX2)

SHARES: dict[Width, float] = {"narrow": 0.25, "full": 1.0}  # share of the paper's channels


def scaled(channels: int, share: float) -> int:
    """The channels of a layer in a network of a share of the paper's."""
    return max(_FEWEST, round(channels * share))


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_width() -> Width:
    """`full` where there is a GPU, else `narrow`."""
    return "full" if torch.cuda.is_available() else "narrow"
