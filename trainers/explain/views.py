"""Explanations as pictures, of the image's own size.

The heat map keeps the fixed scale of all verdicts. What a pixel contributes has no such scale: those pictures are each
stretched to their own range, and only say where, not how much.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engine.types import F32, U8
from trainers.evaluation.pictures import heat, overlay
from trainers.explain.explanation import Explanation
from trainers.explain.occlusion import Occlusion

_SMOOTHED_SHARE = 1 / 64  # of the longer side: attributions of single pixels are noise to the eye
_TOP_PERCENT = 99.7  # drawn as the strongest, so that one pixel does not darken all others
_OPACITY = 0.85
_AGAINST_RGB, _FOR_RGB = (224, 36, 54), (36, 104, 232)
_FULL = 65535  # of the wire contract's map


def views(explanation: Explanation) -> dict[str, U8]:
    """The pictures (H, W, 3) by name, in the order in which they explain; `grad-cam` is missing where there is none."""
    found = explanation
    pixels = found.attribution.values.sum(axis=2)
    shown = {
        "heat-map": overlay(found.image, scores(found.decision.anomaly_map)),
        "integrated-gradients": glow(found.image, smoothed(np.abs(pixels))),
        "for-and-against": signed(found.image, smoothed(pixels)),
        "occlusion": glow(found.image, _softened(found.occlusion)),
    }
    if found.cam is not None:
        shown["grad-cam"] = glow(found.image, found.cam.values)
    return shown


def scores(anomaly_map: npt.NDArray[np.uint16] | None) -> F32:
    """The calibrated pixel scores (H, W), 0..1, of a result's or a decision's map."""
    if anomaly_map is None:
        raise ValueError("the verdict carries no map")
    return anomaly_map.astype(np.float32) / np.float32(_FULL)


def smoothed(values: F32) -> F32:
    """Contributions of pixels (h, w), averaged over their neighbourhood."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(values.shape) * _SMOOTHED_SHARE), np.float32)


def _softened(windows: Occlusion) -> F32:
    """How much each place changes the score, without the edges of the windows."""
    return np.asarray(cv2.GaussianBlur(np.abs(windows.values), (0, 0), windows.stride_px / 2), np.float32)


def glow(image: U8, amounts: F32) -> U8:
    """Amounts (h, w) from 0 on as light on the dimmed grey image (H, W, 3)."""
    strength = _stretched(amounts, image)
    cover = (_OPACITY * np.sqrt(strength))[..., None]  # (H, W, 1)
    return (_dimmed(image) * (1 - cover) + heat(strength) * cover).round().astype(np.uint8)


def signed(image: U8, values: F32) -> U8:
    """Values (h, w) on the dimmed grey image (H, W, 3): red above 0, blue below."""
    strength = _stretched(np.abs(values), image)
    positive = _fitted(values, image) > 0
    colour = np.where(positive[..., None], np.array(_AGAINST_RGB), np.array(_FOR_RGB))
    cover = (_OPACITY * np.sqrt(strength))[..., None]
    return (_dimmed(image) * (1 - cover) + colour * cover).round().astype(np.uint8)


def _stretched(amounts: F32, image: U8) -> F32:
    """Amounts (h, w) -> 0..1 of the image's size."""
    top = max(float(np.percentile(amounts, _TOP_PERCENT)), float(np.finfo(np.float32).tiny))
    return np.asarray(np.clip(_fitted(amounts, image) / np.float32(top), 0, 1), np.float32)


def _fitted(values: F32, image: U8) -> F32:
    size = image.shape[1], image.shape[0]
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_CUBIC), np.float32)


def _dimmed(image: U8) -> U8:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(cv2.convertScaleAbs(grey, alpha=0.6), cv2.COLOR_GRAY2RGB), np.uint8)
