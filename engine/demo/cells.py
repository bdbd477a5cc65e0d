"""The demo's cameras: unseen solar cells, good and defective, dealt out to folders of frames."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cameras:
    """A folder of frames per camera, and which frames are defective by their name."""

    folders: dict[str, Path]
    defective: dict[str, bool]

    @property
    def frames(self) -> int:
        """Frames of all cameras."""
        return len(self.defective)


def deal(test: Path, folder: Path, cameras: int) -> Cameras:
    """Deal the pictures below `test` (good and defective) to `cameras` folders of links, shuffled with seed 0."""
    cells = [(path, path.parent.name != "good") for path in sorted(test.glob("*/*"))]
    random.Random(0).shuffle(cells)
    folders = {f"camera{i + 1}": folder / f"camera{i + 1}" for i in range(cameras)}
    defective: dict[str, bool] = {}
    for path in folders.values():
        path.mkdir(parents=True)
    for number, (cell, bad) in enumerate(cells):
        name = f"{number:04d}_{cell.name}"
        (folders[f"camera{number % cameras + 1}"] / name).symlink_to(cell.resolve())
        defective[name] = bad
    return Cameras(folders, defective)
