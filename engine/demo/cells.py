"""The demo's cameras: unseen solar cells, good and defective, dealt out to folders of frames."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cameras:
    """A folder of frames per camera, and of each frame, by its name, the picture of its cell."""

    folders: dict[str, Path]
    cells: dict[str, Path]

    @property
    def frames(self) -> int:
        """Frames of all cameras."""
        return len(self.cells)

    def defective(self, frame: str) -> bool:
        """Whether the cell of a frame is."""
        return self.cells[frame].parent.name != "good"


def deal(test: Path, folder: Path, cameras: int) -> Cameras:
    """Deal the pictures below `test` (good and defective) to `cameras` folders of links, shuffled with seed 0."""
    paths = sorted(test.glob("*/*"))
    random.Random(0).shuffle(paths)
    folders = {f"camera{i + 1}": folder / f"camera{i + 1}" for i in range(cameras)}
    cells: dict[str, Path] = {}
    for path in folders.values():
        path.mkdir(parents=True)
    for number, path in enumerate(paths):
        name = f"{number:04d}_{path.name}"
        (folders[f"camera{number % cameras + 1}"] / name).symlink_to(path.resolve())
        cells[name] = path
    return Cameras(folders, cells)
