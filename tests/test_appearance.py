"""What a picture looks like, against float64 NumPy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from engine.appearance import appearance


def part(x: int = 30, y: int = 20, level: int = 200, ground: int = 40) -> np.ndarray:
    """A square of 16 px on a plain ground of 64 px."""
    image = np.full((64, 64, 3), ground, np.uint8)
    image[y : y + 16, x : x + 16] = level
    return image


def test_brightness_and_sharpness_are_those_of_numpy():
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    grey = np.rint(image @ np.array([0.299, 0.587, 0.114]))
    laplacian = ndimage.convolve(grey, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], float), mode="mirror")
    brightness, sharpness = appearance(image)[:2]
    assert brightness == pytest.approx(grey.mean(), rel=1e-3)
    assert sharpness == pytest.approx(laplacian.var(), rel=1e-2)


@pytest.mark.parametrize(("level", "ground"), [(200, 40), (40, 200)])
def test_the_position_follows_the_part_bright_or_dark(level, ground):
    before, after = (appearance(part(x, 20, level, ground)) for x in (20, 32))
    assert after[2] - before[2] == pytest.approx(12 / 64, rel=0.15)
    assert after[3] == pytest.approx(before[3], abs=1e-6)
    assert before[3] == pytest.approx((20 + 8) / 64, abs=0.02)


def test_a_blurred_picture_is_less_sharp_and_a_plain_one_lies_in_the_middle():
    image = part()
    assert appearance(cv2.GaussianBlur(image, (5, 5), 1.5))[1] < 0.5 * appearance(image)[1]
    assert appearance(np.full((17, 33, 3), 90, np.uint8)).tolist() == [90, 0, 0.5, 0.5]
