"""From raw scores and maps to a verdict: calibrated score, label, mask and regions. Pure functions of their input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from engine.config import When
from engine.contract import Calibration, Scale
from engine.interest import View
from engine.types import F32, U8, Region, Verdict

MAX_REGIONS = 32
_FULL = 65535


@dataclass(frozen=True, slots=True)
class Decision:
    """What a result says of a frame; see the wire contract for the fields.

    `anomaly_map` is (H, W) uint16 and `pred_mask` (H, W) uint8 0/255 of the frame's size, None where not wanted.
    `raw_score` is that of the part of the picture that counts.
    """

    raw_score: float
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
    view: View | None = None,
) -> Decision:
    """Judge one picture.

    `raw_map` is (H, W) at the bundle's input size; `frame_size` (height, width) is the frame's own, which the map, the
    mask and the regions take. With a `view` only that part of the picture counts: map and mask are 0 outside it.
    """
    if view is not None:
        raw_score = narrowed(raw_score, raw_map, view, calibration)
    pred_score = calibrated_score(raw_score, calibration)
    label = pred_score >= 0.5
    give_map = wanted(want_map, label)
    give_mask = wanted(want_mask, label)
    if not give_map and raw_map.max() < calibration.pixel.threshold:  # nothing can reach the mask: skip the work
        mask = np.zeros(frame_size, np.uint8) if give_mask else None
        return Decision(raw_score, pred_score, label, verdict(raw_score, label, calibration), (), None, mask)
    scores = pixel_scores(raw_map, calibration, frame_size, view)
    mask = mask_of(scores)
    return Decision(
        raw_score=raw_score,
        pred_score=pred_score,
        pred_label=label,
        decision=verdict(raw_score, label, calibration),
        regions=regions_of(scores, mask),
        anomaly_map=quantised(scores) if give_map else None,
        pred_mask=mask if give_mask else None,
    )


def narrowed(raw_score: float, raw_map: F32, view: View, calibration: Calibration) -> float:
    """The raw score of the part of a picture that counts, never more than that of the whole.

    Where the score is the map's maximum (which is told as `trainers.calibration.thresholds` tells it) it is the maximum
    inside the view. A score of the network's own, or of an ensemble, cannot be had of a part: it counts as far as the
    map inside the view bears it out. Of score and peak, each on its calibrated scale, the lower one is taken, so such a
    picture is rejected only where its mask, too, shows something inside the view.
    """
    peak = view.peak(raw_map)
    if math.isclose(raw_score, float(raw_map.max()), rel_tol=1e-4):
        return min(raw_score, peak)
    image, pixel = calibration.image, calibration.pixel
    return min(raw_score, image.threshold + image.width * (peak - pixel.threshold) / pixel.width)


def calibrated_score(raw_score: float, calibration: Calibration) -> float:
    """The raw image score on the calibrated scale, reject threshold at 0.5."""
    return float(calibration.image.calibrated(np.asarray(raw_score, np.float64)))


def member_scores(raw: Mapping[str, float], calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """Each member's raw image score on its own calibrated scale."""
    return {name: calibrated_score(score, calibrations[name]) for name, score in raw.items()}


def verdict(raw_score: float, label: bool, calibration: Calibration) -> Verdict:
    """`reject` from the threshold on, `review` from the second threshold where one is set, else `good`."""
    if label:
        return "reject"
    if calibration.review is not None and raw_score >= calibration.review:
        return "review"
    return "good"


def with_thresholds(calibration: Calibration, review: float | None, reject: float | None) -> Calibration:
    """Other thresholds than the calibrated ones, both given as scores on its scale; None leaves one as it is.

    The new reject threshold becomes 0.5 of the new scale. Raises ValueError unless 0 < review < reject < 1.
    """
    scale = calibration.image
    raw_review = calibration.review if review is None else scale.raw(review)
    raw_reject = scale.threshold if reject is None else scale.raw(reject)
    if raw_review is not None and raw_review >= raw_reject:
        at = float(scale.calibrated(np.asarray(raw_review)))
        raise ValueError(f"review: expected a score below the reject threshold {reject or 0.5:g}, got {at:g}")
    image = Scale(threshold=raw_reject, width=scale.width)
    return msgspec.structs.replace(calibration, image=image, review=raw_review)


def wanted(when: When, label: bool) -> bool:
    """Whether a picture with this label carries a map or mask published `when`."""
    return when == "always" or (when == "anomalous" and label)


def pixel_scores(raw_map: F32, calibration: Calibration, frame_size: tuple[int, int], view: View | None = None) -> F32:
    """(H, W) raw map -> (height, width) calibrated pixel scores, bilinear to the frame's size; 0 outside the view."""
    scores = calibration.pixel.calibrated(raw_map)
    height, width = frame_size
    if scores.shape != frame_size:
        scores = np.asarray(cv2.resize(scores, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    if view is not None:
        np.copyto(scores, 0, where=view.outside)
    return scores


def quantised(scores: F32) -> npt.NDArray[np.uint16]:
    """Pixel scores -> round(65535 * score), as the wire carries them."""
    values: npt.NDArray[np.uint16] = np.rint(scores * np.float32(_FULL)).astype(np.uint16)
    return values


def mask_of(scores: F32) -> U8:
    """255 from a score of one half on (where the quantised value is at least 32768), else 0."""
    mask: U8 = np.multiply(scores >= 0.5, 255, dtype=np.uint8)
    return mask


def regions_of(scores: F32, mask: U8) -> tuple[Region, ...]:
    """The mask's 8-connected regions, highest peak first, at most 32."""
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return ()
    window = (slice(top, top + height), slice(left, left + width))
    regions = [_region(box, left, top, peak) for box, peak in _components(mask[window], scores[window])]
    return tuple(sorted(regions, key=lambda region: -region.score)[:MAX_REGIONS])


def _components(mask: U8, scores: F32) -> Iterator[tuple[list[int], float]]:
    """[x, y, width, height, area] and the peak score of each region of a mask that its regions fill from edge to edge.

    OpenCV's statistics take ten times as long as its labels, and most pictures have one region: it fills the mask.
    """
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    if count == 2:
        height, width = mask.shape
        yield [0, 0, width, height, cv2.countNonZero(mask)], cv2.minMaxLoc(scores, mask)[1]
        return
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for label in range(1, count):
        x, y, width, height, area = (int(v) for v in stats[label])
        box = (slice(y, y + height), slice(x, x + width))
        inside = np.equal(labels[box], label).view(np.uint8)
        yield [x, y, width, height, area], cv2.minMaxLoc(scores[box], inside)[1]


def _region(box: list[int], left: int, top: int, peak: float) -> Region:
    x, y, w, h, area = box
    return Region(bbox=(left + x, top + y, w, h), area=area, score=peak)
