"""Which pictures a folder holds, and what each of them is.

Four layouts are understood:

- MVTec AD: `train/good`, `test/good`, `test/DEFECT`, masks at `ground_truth/DEFECT/NAME_mask.png`;
- BTAD: `train/ok`, `test/ok`, `test/ko`, masks at `ground_truth/ko/NAME.png` (or .bmp);
- two folders, as medical sets come: `normal` and `abnormal`, or the same below `train` and `test` in place of MVTec
  AD's names. Without a test part, a quarter of the normal pictures is it: blocks of neighbours, spread over the set;
- a plain folder of good pictures, nested or not.

Pictures are named by their path below the folder and ordered by that name, numbers by their value (`9.png` before
`10.png`), because neighbours in that order are often the same part and are kept together when the set is split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import DataError

Layout = Literal["mvtec", "btad", "two-folder", "folder"]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_GOOD = ("good", "ok", "normal")
_ABNORMAL = "abnormal"
_BLOCKS, _TEST_EVERY = 20, 4  # of two folders: of so many blocks of normal pictures, every fourth is tested on


@dataclass(frozen=True, slots=True)
class Item:
    """One picture on disc: `name` is its path below the dataset, `defect` the type of its defect, None when good.

    `mask` is its ground truth, None where there is none (always so for good pictures).
    """

    name: str
    path: Path
    defect: str | None = None
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The pictures of a folder in name order; `train` are good ones only, `test` may be empty.

    Of a plain folder all pictures are in `train`.
    """

    path: Path
    layout: Layout
    train: tuple[Item, ...]
    test: tuple[Item, ...]

    @property
    def judged(self) -> tuple[Item, ...]:
        """The pictures an evaluation looks at: `test`, or all of a plain folder, which are good by definition."""
        return self.train if self.layout == "folder" else self.test

    @property
    def defects(self) -> tuple[str, ...]:
        """The types of defect in `test`, sorted."""
        return tuple(sorted({item.defect for item in self.test if item.defect is not None}))


def read_dataset(path: str | Path) -> Dataset:
    """Find the pictures below a folder; reads none of them.

    Raises DataError when there is no folder or no picture, when the folder holds several datasets, or when good
    pictures cannot be told from others.
    """
    root = Path(path)
    if not root.is_dir():
        got = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of pictures, found {got}; give a folder that exists")
    if (root / "train").is_dir() or (root / "test").is_dir():
        return _read_split(root)
    _refuse_parent(root)
    if (root / "normal").is_dir() and (root / _ABNORMAL).is_dir():
        return _read_two_folders(root)
    _refuse_mixed(root)
    items = tuple(_items(root, root))
    if not items:
        raise DataError(f"{root}: no pictures here (expected {_endings()}); give a folder that has some")
    return Dataset(root, "folder", items, ())


def class_folders(root: Path) -> dict[str, dict[str, tuple[Item, ...]]] | None:
    """Class -> its pictures in `train` and `test`; None where `train` does not hold several, none named good."""
    folders = _folders(root / "train")
    if len(folders) < 2 or any(folder.name in _GOOD for folder in folders):
        return None
    return {
        folder.name: {part: _items(root, root / part / folder.name) for part in ("train", "test")} for folder in folders
    }


def name_order(name: str) -> tuple[str | int, ...]:
    """Sort key of a name: runs of digits compare by value, the rest as text; the name itself breaks ties."""
    parts = re.split(r"(\d+)", name)
    return (*(int(part) if i % 2 else part for i, part in enumerate(parts)), name)


def _read_split(root: Path) -> Dataset:
    """A dataset with `train` and `test` folders."""
    train = [item for good in _GOOD for item in _items(root, root / "train" / good)]
    test: list[Item] = []
    for folder in _folders(root / "test"):
        defect = None if folder.name in _GOOD else folder.name
        masks = _masks(root / "ground_truth" / folder.name) if defect else {}
        test += [Item(i.name, i.path, defect, masks.get(i.path.stem)) for i in _items(root, folder)]
    if not train and not test:
        raise DataError(
            f"{root}: no pictures in train/good, train/ok or test/* (expected {_endings()}); "
            f"put the good ones into {root / 'train' / 'good'}, or give a plain folder of good pictures"
        )
    btad = (root / "train" / "ok").is_dir() or (root / "test" / "ok").is_dir()
    return Dataset(root, "btad" if btad else "mvtec", _ordered(train), _ordered(test))


def _read_two_folders(root: Path) -> Dataset:
    """`normal` and `abnormal`, nothing said of training and test."""
    normal = _items(root, root / "normal")
    abnormal = [Item(i.name, i.path, _ABNORMAL) for i in _items(root, root / _ABNORMAL)]
    if len(normal) < _BLOCKS or not abnormal:
        raise DataError(
            f"{root}: expected at least {_BLOCKS} pictures in normal and some in {_ABNORMAL} ({_endings()}), got "
            f"{len(normal)} and {len(abnormal)}; add pictures"
        )
    tested = {i for block in range(_TEST_EVERY - 1, _BLOCKS, _TEST_EVERY) for i in _block(len(normal), block)}
    train = [item for i, item in enumerate(normal) if i not in tested]
    return Dataset(root, "two-folder", _ordered(train), _ordered([*(normal[i] for i in tested), *abnormal]))


def _block(n: int, number: int) -> range:
    """The places of one of _BLOCKS runs of n neighbours."""
    return range(number * n // _BLOCKS, (number + 1) * n // _BLOCKS)


def _refuse_parent(root: Path) -> None:
    """A folder of datasets must not be read as one: its defects would pass as good pictures."""
    inner = [f.name for f in _folders(root) if (f / "train").is_dir() or (f / "test").is_dir()]
    if inner:
        raise DataError(
            f"{root}: expected one dataset, found {len(inner)} in folders ({_some(inner)}); give one of them, "
            f"such as {root / inner[0]}"
        )


def _refuse_mixed(root: Path) -> None:
    """`good/` beside other folders of pictures: training on all of them would teach the defects."""
    folders = {f.name: f for f in _folders(root)}
    good = next((name for name in _GOOD if name in folders), None)
    others = [name for name, f in folders.items() if name != good and next(_pictures(f), None) is not None]
    if good and others:
        raise DataError(
            f"{root}: expected good pictures only, found '{good}' beside {_some(others)}; give {root / good}, "
            f"or arrange them as train/good and test/DEFECT"
        )


def _items(root: Path, folder: Path) -> tuple[Item, ...]:
    """All pictures below a folder as good ones, in name order."""
    return _ordered([Item(path.relative_to(root).as_posix(), path) for path in _pictures(folder)])


def _ordered(items: list[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: name_order(item.name)))


def _masks(folder: Path) -> dict[str, Path]:
    """Stem of the picture -> its mask (`NAME_mask.png` or `NAME.png`)."""
    paths = sorted(_pictures(folder), key=lambda path: path.name)
    return {path.stem.removesuffix("_mask"): path for path in paths}


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _pictures(folder: Path) -> Iterator[Path]:
    """Paths of the pictures below a folder, hidden files and folders left out; in no order."""
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield Path(base, name)


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS))


def _some(names: list[str]) -> str:
    """Up to three names and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
