"""What a picture is compared with: the same one without what may have mattered."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from engine.errors import DecodeError, UsageError
from engine.images import read_image, resize
from engine.types import U8

NAMED = ("blur", "black")
BLUR_SHARE = 1 / 32  # of the longer side: details go, the coarse picture stays


def baseline(name: str, picture: U8) -> U8:
    """`blur`: the picture (H, W, 3) without its details; `black`; else the path of a picture, of a good part say.

    Raises UsageError where that cannot be read.
    """
    height, width = picture.shape[:2]
    if name == "blur":
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(height, width) * BLUR_SHARE), np.uint8)
    if name == "black":
        return np.zeros_like(picture)
    return resize(read(Path(name), f"--baseline (a file, or one of {', '.join(NAMED)})"), height, width)


def read(path: Path, what: str) -> U8:
    """A picture's file as (H, W, 3) RGB; raises UsageError, which begins with `what`, where there is none."""
    try:
        return read_image(path)
    except OSError as error:
        raise UsageError(f"{what}: {path} cannot be read ({error.strerror}); give the path of a picture") from None
    except DecodeError as error:
        raise UsageError(f"{what}: {path}: {error}") from None
