"""What a picture looks like in four numbers: how bright, how sharp, and where its content lies.

Training keeps them of its good pictures and serving compares a line's with these (`engine.drift`), so both call this
one function, on pictures at the network's input size.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.types import F64, U8

NAMES = ("brightness", "sharpness", "position_x", "position_y")
_HALVINGS = 2  # a position is looked for on a coarse picture; halving has a fast path in OpenCV, other factors do not


def appearance(image: U8) -> F64:
    """(H, W, 3) RGB -> (4,) in the order of NAMES.

    Brightness is the mean grey value, 0..255; sharpness the variance of the Laplacian (LAPV in Pertuz et al. 2013).
    The position is the centroid of the squared contrast to the mean, as shares of width and height: it follows the
    part, dark on bright or bright on dark; (0.5, 0.5) where there is no contrast.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    brightness = cv2.mean(grey)[0]
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    mean = cv2.sumElems(laplacian)[0] / grey.size
    sharpness = max(0.0, cv2.norm(laplacian, cv2.NORM_L2SQR) / grey.size - mean * mean)
    return np.array([brightness, sharpness, *_position(grey, brightness)])


def _position(grey: U8, brightness: float) -> tuple[float, float]:
    coarse = grey
    for _ in range(_HALVINGS):
        height, width = coarse.shape
        coarse = np.asarray(
            cv2.resize(coarse, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA), np.uint8
        )
    contrast = coarse.astype(np.float32) - np.float32(brightness)
    moments = cv2.moments(contrast * contrast)
    total = moments["m00"]
    if total <= 0:
        return 0.5, 0.5
    height, width = coarse.shape
    return (moments["m10"] / total + 0.5) / width, (moments["m01"] / total + 0.5) / height
