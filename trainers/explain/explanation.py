"""Why a bundle scored a picture as it did: what it found, and which pixels, features and places it rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from engine.bundle import Bundle
from engine.decide import Decision, decide
from engine.images import resize
from engine.serving.base import RawBatch
from engine.types import F32, U8
from trainers.explain.baseline import baseline
from trainers.explain.cam import Cam, grad_cam
from trainers.explain.gradients import Attribution, integrated_gradients
from trainers.explain.occlusion import Occlusion, occlusion
from trainers.explain.question import Place, Question
from trainers.explain.rebuild import rebuild, verify
from trainers.learning.passes import torch_threads
from trainers.progress import Progress

AGREES_FROM = 0.5  # correlation of integrated gradients with occlusion


@dataclass(frozen=True, slots=True)
class Options:
    """`baseline` is `blur`, `black` or a file; `max_steps` of integrated gradients; `threads` 0 means all cores."""

    baseline: str = "blur"
    max_steps: int = 256
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """One model's verdict on one picture, and what it rests on.

    `image` (H, W, 3) is of its own size, `picture` (h, w, 3) of the network's; `raw_score` is of the served model,
    `rebuilt_score` of the one that has gradients. `place` (x, y) of `image` is where the map decided, None where the
    network gives the score itself. `agreement` is the correlation of integrated gradients with occlusion.
    """

    image: U8
    picture: U8
    decision: Decision
    raw_score: float
    rebuilt_score: float
    place: Place | None
    attribution: Attribution
    cam: Cam | None
    occlusion: Occlusion
    agreement: float

    def document(self) -> dict[str, Any]:
        """Its part of the JSON of `engine explain --json`."""
        found, cam, windows = self.attribution, self.cam, self.occlusion
        return {
            "pred_score": self.decision.pred_score,
            "raw_score": self.raw_score,
            "rebuilt_score": self.rebuilt_score,
            "place": self.place,
            "integrated_gradients": {
                "steps": found.steps,
                "difference": found.difference,
                "gap": found.gap,
                "allowed": found.allowed,
                "complete": found.complete,
            },
            "grad_cam": None if cam is None else {"layer": cam.layer, "channels": cam.channels},
            "occlusion": {"window_px": windows.window_px, "stride_px": windows.stride_px},
            "agreement": self.agreement,
        }


def explain(
    bundle: Bundle, served: Callable[[U8], RawBatch], image: U8, options: Options, progress: Progress
) -> Explanation:
    """Explain what one model, `served` from its bundle in fp32, says of a picture (H, W, 3).

    Raises BackendError where the model that has gradients does not score the picture like the served one, UsageError
    for a baseline that cannot be read.
    """
    size, calibration = bundle.manifest.input, bundle.executable("fp32").calibration
    picture = resize(image, size.height, size.width)
    other = baseline(options.baseline, picture)
    raw = served(picture[None])
    raw_score = float(raw.scores[0])
    with torch_threads(options.threads):
        rebuilt = rebuild(bundle)
        place = None if rebuilt.scores_itself else _peak(raw.maps[0])
        question = Question(served, rebuilt, place, calibration.image.width)
        rebuilt_score = question.answer(picture)
        verify(rebuilt_score, raw_score, calibration.image.width)
        cam = grad_cam(question, picture)
        attribution = integrated_gradients(question, picture, other, options.max_steps, progress)
    windows = occlusion(question.ask, picture, other, progress)
    return Explanation(
        image=image,
        picture=picture,
        decision=decide(raw_score, raw.maps[0], calibration, (image.shape[0], image.shape[1])),
        raw_score=raw_score,
        rebuilt_score=rebuilt_score,
        place=None if place is None else _moved(place, picture, image),
        attribution=attribution,
        cam=cam,
        occlusion=windows,
        agreement=agreement(attribution.values, windows),
    )


def agreement(values: F32, windows: Occlusion) -> float:
    """Correlation over pixels of how much occlusion changes the score with how much attributions (H, W, 3) say.

    Attributions are averaged as occlusion is: over the windows that cover a pixel. 0 where one of them is constant.
    """
    amount = np.abs(values.sum(axis=2))
    window = (windows.window_px, windows.window_px)
    averaged = cv2.blur(cv2.blur(amount, window), window)
    occluded = np.abs(windows.values)
    if not averaged.std() or not occluded.std():
        return 0.0
    return float(np.corrcoef(averaged.ravel(), occluded.ravel())[0, 1])


def _moved(place: Place, picture: U8, image: U8) -> Place:
    """A place of the network's picture in the image as it came."""
    (height, width), (rows, columns) = picture.shape[:2], image.shape[:2]
    return int((place[0] + 0.5) * columns / width), int((place[1] + 0.5) * rows / height)


def _peak(raw_map: F32) -> Place:
    y, x = np.unravel_index(int(raw_map.argmax()), raw_map.shape)
    return int(x), int(y)
