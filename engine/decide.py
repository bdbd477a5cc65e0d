"""From raw scores and maps to a verdict: calibrated score, label, mask and regions. Pure functions of their input."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.config import When
from engine.contract import Calibration
from engine.types import F32, U8, Region, Verdict

MAX_REGIONS = 32
_FULL = 65535
_HALF = 32768  # a map value from here on is in the mask


@dataclass(frozen=True, slots=True)
class Decision:
    """What a result says of a frame; see the wire contract for the fields.

    `anomaly_map` is (H, W) uint16 and `pred_mask` (H, W) uint8 0/255 of the frame's size, None where not wanted.
    """

    pred_score: float
    pred_label: bool
    decision: Verdict
    regions: tuple[Region, ...]
    anomaly_map: npt.NDArray[np.uint16] | None
    pred_mask: U8 | None


def decide(
    raw_score: float,
    raw_map: F32,
    calibration: Calibration,
    frame_size: tuple[int, int],
    want_map: When = "always",
    want_mask: When = "always",
) -> Decision:
    """Judge one picture.

    `raw_map` is (H, W) at the bundle's input size; `frame_size` (height, width) is the frame's own, which the map, the
    mask and the regions take.
    """
    pred_score = calibrated_score(raw_score, calibration)
    label = pred_score >= 0.5
    give_map = wanted(want_map, label)
    give_mask = wanted(want_mask, label)
    if not give_map and raw_map.max() < calibration.pixel.threshold:  # nothing can reach the mask: skip the work
        mask = np.zeros(frame_size, np.uint8) if give_mask else None
        return Decision(pred_score, label, verdict(raw_score, label, calibration), (), None, mask)
    values = pixel_map(raw_map, calibration, frame_size)
    mask = mask_of(values)
    return Decision(
        pred_score=pred_score,
        pred_label=label,
        decision=verdict(raw_score, label, calibration),
        regions=regions_of(values, mask),
        anomaly_map=values if give_map else None,
        pred_mask=mask if give_mask else None,
    )


def calibrated_score(raw_score: float, calibration: Calibration) -> float:
    """The raw image score on the calibrated scale, reject threshold at 0.5."""
    return float(calibration.image.calibrated(np.asarray(raw_score, np.float64)))


def verdict(raw_score: float, label: bool, calibration: Calibration) -> Verdict:
    """`reject` from the threshold on, `review` from the second threshold where one is set, else `good`."""
    if label:
        return "reject"
    if calibration.review is not None and raw_score >= calibration.review:
        return "review"
    return "good"


def wanted(when: When, label: bool) -> bool:
    """Whether a picture with this label carries a map or mask published `when`."""
    return when == "always" or (when == "anomalous" and label)


def pixel_map(raw_map: F32, calibration: Calibration, frame_size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """(H, W) raw map -> (height, width) uint16, round(65535 * pixel score), bilinearly resized to the frame."""
    scores = calibration.pixel.calibrated(raw_map).astype(np.float32)
    height, width = frame_size
    if scores.shape != frame_size:
        scores = np.asarray(cv2.resize(scores, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    values: npt.NDArray[np.uint16] = np.rint(scores * np.float32(_FULL)).astype(np.uint16)
    return values


def mask_of(values: npt.NDArray[np.uint16]) -> U8:
    """255 where the map's value is at least 32768, else 0."""
    return (values >= _HALF).astype(np.uint8) * np.uint8(255)


def regions_of(values: npt.NDArray[np.uint16], mask: U8) -> tuple[Region, ...]:
    """The mask's 8-connected regions, highest peak first, at most 32."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 1:
        return ()
    peaks = np.zeros(count, np.uint16)
    np.maximum.at(peaks, np.asarray(labels[mask > 0], np.intp), values[mask > 0])
    order = sorted(range(1, count), key=lambda i: (-int(peaks[i]), i))[:MAX_REGIONS]
    return tuple(_region(np.asarray(stats[i], np.int32), int(peaks[i])) for i in order)


def _region(stats: npt.NDArray[np.int32], peak: int) -> Region:
    x, y, w, h, area = (int(v) for v in stats)
    return Region(bbox=(x, y, w, h), area=area, score=peak / _FULL)
