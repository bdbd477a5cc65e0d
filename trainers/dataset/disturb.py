"""Disturbed copies of a dataset (FYD, Table 3): every training and test picture changed at random.

The paper names the changes, not their strength; these are the customary ones. Its authors leave out what would turn
good pictures into defects (colour on tile, wood and capsule; rotation and flip on transistor): choose the data so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.types import U8
from trainers.dataset.good import Dataset, Item, Pictures, read_mask
from trainers.progress import Progress

BRIGHTNESS = 0.2  # share of the full range, either way
CONTRAST = 0.2  # factor 1 +- this
CLAHE_CLIP = (1.0, 4.0)
CLAHE_TILES = (8, 8)
ZOOM = (0.8, 1.2)
TURN_DEG = 20.0  # either way

Change = Callable[[U8, np.random.Generator], U8]


def colour(image: U8, random: np.random.Generator) -> U8:
    """(H, W, 3) RGB with another brightness and contrast, then contrast-limited equalisation of its lightness."""
    gain = 1 + random.uniform(-CONTRAST, CONTRAST)
    offset = 255 * random.uniform(-BRIGHTNESS, BRIGHTNESS)
    changed = np.clip(image.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)
    lab = cv2.cvtColor(changed, cv2.COLOR_RGB2LAB)
    clahe = cv2.createCLAHE(random.uniform(*CLAHE_CLIP), CLAHE_TILES)
    lab[:, :, 0] = clahe.apply(np.ascontiguousarray(lab[:, :, 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def spatial(image: U8, random: np.random.Generator) -> U8:
    """A picture or mask zoomed and turned about its centre, and perhaps flipped; what comes in is mirrored.

    Equal generators move a picture and its mask alike.
    """
    height, width = image.shape[:2]
    zoom, turn = random.uniform(*ZOOM), random.uniform(-TURN_DEG, TURN_DEG)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, zoom)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    for axis in (0, 1):
        if random.random() < 0.5:
            moved = np.flip(moved, axis)
    return np.ascontiguousarray(moved, np.uint8)


CHANGES: dict[str, Change] = {"colour": colour, "spatial": spatial}


def write_disturbed(dataset: Dataset, kind: str, folder: Path, seed: int, progress: Progress) -> Path:
    """Fill `folder` with the dataset under one of CHANGES, in MVTec AD layout; returns it.

    What a picture gets depends on its name and the seed alone. Raises DataError for a file that cannot be read.
    """
    with progress.task(f"disturb: {kind}", len(dataset.train) + len(dataset.test)) as task:
        for part, items in (("train", dataset.train), ("test", dataset.test)):
            pictures = Pictures(items)
            for i, item in enumerate(items):
                _write_one(item, pictures[i], CHANGES[kind], folder, part, seed)
                task.advance()
    return folder


def _write_one(item: Item, image: U8, change: Change, folder: Path, part: str, seed: int) -> None:
    """A changed picture and, where the change moves things, its changed mask."""
    name = "-".join(Path(item.name).with_suffix("").parts)
    defect = item.defect or "good"
    changed = np.asarray(cv2.cvtColor(change(image, _random(seed, item)), cv2.COLOR_RGB2BGR), np.uint8)
    _write(folder / part / defect / f"{name}.png", changed)
    if item.mask is not None:
        mask = read_mask(item.mask, *image.shape[:2]).astype(np.uint8) * np.uint8(255)
        moved = spatial(mask, _random(seed, item)) if change is spatial else mask
        _write(folder / "ground_truth" / defect / f"{name}_mask.png", moved)


def _random(seed: int, item: Item) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(item.name.encode())])


def _write(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
