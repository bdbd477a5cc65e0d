"""A bundle of every method, its question about a defective picture, and the small one of known arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.serving.detector import Detector
from engine.serving.select import open_local
from trainers.dataset.good import Pictures, read_dataset
from trainers.explain.question import Question
from trainers.explain.rebuild import rebuild


@dataclass(frozen=True)
class Case:
    bundle: Bundle
    served: Detector
    question: Question


@pytest.fixture(scope="session")
def ask() -> Callable[..., Case]:
    """The case of a bundle and the picture that is asked about."""

    def make(path, picture: np.ndarray) -> Case:
        bundle = bundles.read(path)
        served, rebuilt = open_local(bundle, "onnx", "fp32", threads=1), rebuild(bundle)
        raw_map = served.predict(picture[None]).maps[0]
        y, x = np.unravel_index(int(raw_map.argmax()), raw_map.shape)
        place = None if rebuilt.scores_itself else (int(x), int(y))
        return Case(bundle, served, Question(served.predict, rebuilt, place, 1.0))

    return make


@pytest.fixture(scope="session")
def notched(parts) -> np.ndarray:
    """(64, 64, 3) a defective picture."""
    items = read_dataset(parts).test
    return Pictures([item for item in items if item.defect])[0]


@pytest.fixture(scope="session")
def spotted(pictures) -> np.ndarray:
    """(64, 64, 3) one of the small bundle's pictures, with a bright spot."""
    image = pictures[0].copy()
    image[16:32, 24:40] = 255
    return image


@pytest.fixture
def small(tiny, spotted, ask) -> Case:
    return ask(tiny.path, spotted)
