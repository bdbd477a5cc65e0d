"""A tiny dataset of drawn parts, and a backbone file with random weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from trainers import backbones, registry
from trainers.base import TrainOptions, TrainReport
from trainers.progress import RecordedProgress, Task

SIDE = 64


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Tiny tensors: more threads are slower."""
    torch.set_num_threads(1)


def draw(seed: int, defect: bool = False) -> np.ndarray:
    """(64, 64, 3) a bright bar on grey noise; a defective one has a dark notch."""
    random = np.random.default_rng(seed)
    image = random.normal(90, 6, (SIDE, SIDE, 3))
    x, y = random.integers(-2, 3, 2)
    image[24 + y : 40 + y, 8 + x : 56 + x] += 90
    if defect:
        image[26 + y : 38 + y, 28 + x : 36 + x] -= 110
    return np.clip(image, 0, 255).astype(np.uint8)


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="session")
def parts(once) -> Path:
    """MVTec AD layout: 24 training pictures, 6 good and 6 notched ones with masks."""

    def make(folder: Path) -> Path:
        root = folder / "parts"
        for i in range(24):
            put(root / f"train/good/{i:03}.png", draw(i))
        for i in range(6):
            put(root / f"test/good/{i:03}.png", draw(100 + i))
            put(root / f"test/notch/{i:03}.png", draw(200 + i, defect=True))
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[26:38, 28:36] = 255
            put(root / f"ground_truth/notch/{i:03}_mask.png", mask)
        return root

    return once("parts", make)


@pytest.fixture(scope="session")
def many_parts(tmp_path_factory) -> Path:
    """A plain folder of 110 good pictures: enough for a fifth of them to say something of an ensemble."""
    root = tmp_path_factory.mktemp("data") / "many"
    for i in range(110):
        put(root / f"{i:03}.png", draw(i))
    return root


@pytest.fixture(scope="session")
def resnet_file(tmp_path_factory) -> str:
    """`--backbone` value of a ResNet-18 with random weights, written as torchvision writes its files."""
    path = tmp_path_factory.mktemp("weights") / "resnet18-random.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = backbones.build("resnet18", SIDE).state_dict()
    torch.save(state | {"layer4.0.conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, path)
    return f"resnet18={path}"


# Of a training with one epoch: what is smaller still.
SMALLEST: dict[str, dict[str, object]] = {"fyd": {"epochs": 0}, "igd": {"encoder": "scratch"}}


@pytest.fixture(scope="session")
def tiny_options(parts) -> Callable[[str, Path], TrainOptions]:
    """The smallest training of a method into a folder."""

    def options(method: str, out: Path) -> TrainOptions:
        options = TrainOptions(data=parts, out=out, image_size=SIDE, epochs=1, threads=1, target_fpr=0.05)
        return replace(options, **SMALLEST.get(method, {}))

    return options


@pytest.fixture(scope="session")
def trained(tiny_options, once) -> Callable[[str], TrainReport]:
    """The report of a method's smallest training, done once in a run of the tests."""

    def train(method: str) -> TrainReport:
        return once(
            f"trained-{method}",
            lambda folder: registry.get(method).train(tiny_options(method, folder / "bundle"), RecordedProgress()),
        )

    return train


class InterruptError(Exception):
    """What breaks an interrupted training off."""


@dataclass(frozen=True)
class Interrupting(RecordedProgress):
    """Breaks the work off after the first half of the task `only`, or of any task where it is None."""

    only: str | None = None

    @contextmanager
    def task(self, name, total):
        with super().task(name, total) as task:
            yield Limited(task, total / 2 if self.only in (None, name) else float("inf"))


@dataclass
class Limited:
    task: Task
    limit: float
    done: int = 0

    def advance(self, steps=1, *, note=""):
        self.task.advance(steps, note=note)
        self.done += steps
        if self.done > self.limit:
            raise InterruptError


@pytest.fixture
def interrupted() -> Callable[..., None]:
    """Runs a training whose progress breaks it off in the middle of the task `only`, and sees that it did."""

    def run(training: Callable[[RecordedProgress], object], only: str | None = None) -> None:
        with pytest.raises(InterruptError):
            training(Interrupting(only=only))

    return run
