"""Pictures as arrays: decoding the wire's codecs and resizing to a network's input. Pure functions, RGB throughout."""

from __future__ import annotations

import cv2
import numpy as np

from engine.types import U8

MIN_SIDE_PX = 16


def resize(image: U8, height: int, width: int) -> U8:
    """(H, W, 3) -> (height, width, 3): area averaging where the picture shrinks to less than half, else bilinear.

    The one resize of the project: training, evaluation and serving all call it, so that their scores agree. Bilinear
    sampling aliases only beyond a factor of two, and costs a sixth of area averaging.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > 2 * height or image.shape[1] > 2 * width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
