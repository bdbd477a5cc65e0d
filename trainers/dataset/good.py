"""Good pictures from disc: read one by one, checked before training, split into blocks of neighbours."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt

from engine.contract import TrainingData
from engine.errors import DataError, DecodeError
from engine.images import MIN_SIDE_PX, read_image, resize
from engine.types import U8
from trainers.dataset.layouts import Dataset, Item, read_dataset

__all__ = [
    "MIN_GOOD",
    "Dataset",
    "ImageSource",
    "Item",
    "Pictures",
    "Selection",
    "TrainingSet",
    "batches",
    "blocks",
    "check_training",
    "read_dataset",
    "read_mask",
]

# The calibrated threshold rests on the three largest held-out scores above a fourth: with fewer there is none.
MIN_GOOD = 4
_SHOWN = 3


class ImageSource(Protocol):
    """Pictures by number: (H, W, 3) uint8 RGB, each of its own size. A list of arrays is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> U8: ...


class Selection(Protocol):
    """Pictures of a source at one size (H, W); `rows` are their numbers in it."""

    @property
    def rows(self) -> npt.NDArray[np.intp]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> U8: ...

    def take(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> U8:
        """The pictures with these numbers, (n, H, W, 3), as a copy."""

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Self:
        """The pictures with these numbers, in the order given."""


class Pictures:
    """An ImageSource over files: read when asked for, not kept."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> U8:
        """Raises DataError naming the file when it cannot be read."""
        path = self.items[index].path
        try:
            return read_image(path)
        except (DecodeError, OSError) as error:
            raise DataError(f"{path}: cannot be read ({error}); replace or remove it") from error

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Pictures:
        """The pictures with these numbers, in the order given."""
        return Pictures([self.items[i] for i in indices])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Good pictures that passed the checks, the SHA-256 of each file, their commonest (height, width) px, the record of
    them for the bundle, and one line per thing worth knowing."""

    pictures: Pictures
    contents: tuple[str, ...]
    size: tuple[int, int]
    record: TrainingData
    warnings: tuple[str, ...]

    def rows_of(self, contents: Sequence[str]) -> npt.NDArray[np.intp]:
        """The numbers of the pictures with these hashes, ascending."""
        place = {content: row for row, content in enumerate(self.contents)}
        return np.sort(np.array([place[content] for content in contents], np.intp))


@dataclass(frozen=True, slots=True)
class _Found:
    """What reading every training file once showed."""

    good: dict[str, Item]  # content hash -> first picture with it
    size: dict[str, tuple[int, int]]  # name -> (height, width) px
    duplicates: list[str]
    unreadable: list[str]

    def commonest_size(self) -> tuple[tuple[int, int], int]:
        """That of most pictures, and of how many."""
        return Counter(self.size.values()).most_common(1)[0]


def batches(source: ImageSource, size: int, height: int, width: int) -> Iterator[U8]:
    """The pictures in order as (n, height, width, 3) uint8 with n <= `size`, resized as everywhere in the engine."""
    for start in range(0, len(source), size):
        stop = min(start + size, len(source))
        yield np.stack([resize(source[i], height, width) for i in range(start, stop)])


def blocks(n: int, k: int) -> list[npt.NDArray[np.intp]]:
    """0..n-1 cut into k contiguous runs whose lengths differ by at most one.

    Neighbours in name order are often pictures of the same part; a random split would put one into training and its
    twin among the held-out ones, whose scores would then look too good.
    """
    if not 1 <= k <= n:
        raise ValueError(f"blocks: expected 1 <= k <= n, got k={k}, n={n}")
    return np.array_split(np.arange(n), k)


def check_training(dataset: Dataset) -> TrainingSet:
    """Read every training picture once and keep the usable ones.

    Duplicates (equal bytes) are left out with a warning; differing sizes are warned of, since detectors resize.
    Raises DataError when a file cannot be read or fewer than MIN_GOOD different pictures remain.
    """
    found = _read_all(dataset.train)
    where, total = dataset.path, len(dataset.train)
    if found.unreadable:
        raise DataError(
            f"{where}: {len(found.unreadable)} of {total} training pictures cannot be read: "
            f"{_some(found.unreadable)}; replace or remove them"
        )
    if len(found.good) < MIN_GOOD:
        copies = f" ({len(found.duplicates)} more are duplicates)" if found.duplicates else ""
        names = f": {_some([item.name for item in found.good.values()])}" if found.good else ""
        raise DataError(
            f"{where}: expected at least {MIN_GOOD} different good pictures to train on, "
            f"got {len(found.good)}{copies}{names}; add good pictures"
        )
    warnings = [_duplicate_warning(where, found), _size_warning(where, found)]
    return TrainingSet(
        pictures=Pictures(list(found.good.values())),
        contents=tuple(found.good),
        size=found.commonest_size()[0],
        record=_record(where, found),
        warnings=tuple(line for line in warnings if line),
    )


def read_mask(path: Path, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Ground truth as (height, width) bool: grey value over one half, resized to the picture by nearest neighbour.

    A mask whose largest value is 1 is taken as 0/1 instead of 0/255. Raises DataError when it cannot be read.
    """
    data = np.fromfile(path, np.uint8)
    grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if grey is None:
        raise DataError(f"{path}: expected a ground truth mask, got no picture; replace or remove it")
    mask = grey > (0 if grey.max() == 1 else 127)
    if mask.shape == (height, width):
        return mask
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.bool_)


def _read_all(items: Sequence[Item]) -> _Found:
    found = _Found({}, {}, [], [])
    for item in items:
        try:
            _take(found, item)
        except (DecodeError, OSError):
            found.unreadable.append(item.name)
    return found


def _take(found: _Found, item: Item) -> None:
    """Note what one picture is; raises DecodeError or OSError when it cannot be read."""
    content = hashlib.sha256(item.path.read_bytes()).hexdigest()
    if content in found.good:
        found.duplicates.append(f"{item.name} (= {found.good[content].name})")
        return
    height, width = read_image(item.path).shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        found.unreadable.append(f"{item.name} ({width} x {height} px, under {MIN_SIDE_PX})")
        return
    found.good[content] = item
    found.size[item.name] = (height, width)


def _record(where: Path, found: _Found) -> TrainingData:
    digest = hashlib.sha256()
    for name, content in sorted((item.name, content) for content, item in found.good.items()):
        digest.update(f"{name}\0{content}\n".encode())
    heights, widths = zip(*found.size.values(), strict=True)
    return TrainingData(
        path=str(where),
        n_good=len(found.good),
        sha256=digest.hexdigest(),
        height_range=(min(heights), max(heights)),
        width_range=(min(widths), max(widths)),
    )


def _duplicate_warning(where: Path, found: _Found) -> str:
    if not found.duplicates:
        return ""
    count = len(found.duplicates)
    noun = "duplicate is" if count == 1 else "duplicates are"
    return f"{where}: {count} {noun} left out of training: {_some(found.duplicates)}"


def _size_warning(where: Path, found: _Found) -> str:
    (height, width), count = found.commonest_size()
    others = [f"{name} ({w} x {h})" for name, (h, w) in found.size.items() if (h, w) != (height, width)]
    if not others:
        return ""
    sizes = len(set(found.size.values()))
    return (
        f"{where}: pictures of {sizes} sizes, most often {width} x {height} px ({count} of {len(found.size)}); "
        f"others: {_some(others)}; all are resized to the detector's input"
    )


def _some(names: Sequence[str]) -> str:
    """Up to three names and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
