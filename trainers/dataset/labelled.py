"""Datasets of classes, for the one-class protocol: one class is good, all others are defects.

Three layouts are understood, each with a training and a test part:

- idx, as MNIST and Fashion-MNIST come: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, plain or .gz;
- npz: one file whose name has `train` in it and one with `test`, of arrays `labels` (n,) and either `images`
  (n, H, W) or (n, H, W, 3) uint8, or `jpeg` (all files end to end, uint8) with `offsets` (n + 1,); `classes` (names)
  may be there. Nothing is unpickled;
- folders: `train/CLASS/...` and `test/CLASS/...`.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.errors import DataError
from engine.types import U8
from trainers.dataset.good import ImageSource, Pictures
from trainers.dataset.layouts import class_folders
from trainers.dataset.subsets import SPARE
from trainers.progress import Progress

_IDX_PARTS = {"train": "train", "test": "t10k"}
_IDX_UINT8 = 8  # the type code of unsigned bytes
_PARTS = ("train", "test")

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Pictures and the number of the class (n,) of each."""

    images: ImageSource
    labels: Labels


@dataclass(frozen=True, slots=True)
class Labelled:
    """A dataset of classes; labels are places in `classes`."""

    path: Path
    classes: tuple[str, ...]
    train: Part
    test: Part


class Stored:
    """An ImageSource of an array (n, H, W) or (n, H, W, 3) uint8."""

    def __init__(self, images: U8) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> U8:
        image: U8 = self._images[index]
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


class Encoded:
    """An ImageSource of files end to end: number i is `data[offsets[i]:offsets[i + 1]]`."""

    def __init__(self, path: Path, data: U8, offsets: npt.NDArray[np.int64]) -> None:
        self._path, self._data, self._offsets = path, data, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> U8:
        """Raises DataError for one that is no picture."""
        data = self._data[self._offsets[index] : self._offsets[index + 1]]
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise DataError(f"{self._path}: picture {index} cannot be decoded; get the file again")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labelled(path: str | Path) -> Labelled | None:
    """The dataset of classes in a folder, None where it holds none.

    Raises DataError where it is one that cannot be used.
    """
    root = Path(path)
    if not root.is_dir():
        return None
    for reader in (_read_idx, _read_npz, _read_folders):
        found = reader(root)
        if found is not None:
            return found
    return None


def write_one_class(data: Labelled, index: int, folder: Path, progress: Progress, *, spare: bool = False) -> Path:
    """Fill `folder` with MVTec AD layout: class `index` is good, other test pictures are defects by class.

    With `spare`, as many training pictures of the other classes lie beside it, for `subsets.write_outliers`.
    Returns the folder.
    """
    if spare:
        _write_spare(data, index, folder)
    good = np.flatnonzero(data.train.labels == index)
    with progress.task(f"write {data.classes[index]}", len(good) + len(data.test.labels)) as task:
        for row in good.tolist():
            _write(folder / "train" / "good" / f"{row:06}.png", data.train.images[row])
            task.advance()
        for row, label in enumerate(data.test.labels.tolist()):
            kind = "good" if label == index else data.classes[label]
            _write(folder / "test" / kind / f"{row:06}.png", data.test.images[row])
            task.advance()
    return folder


def _write_spare(data: Labelled, index: int, folder: Path) -> None:
    others = np.flatnonzero(data.train.labels != index)
    count = min(len(others), len(data.train.labels) - len(others))
    for row in np.random.default_rng(index).permutation(others)[:count].tolist():
        _write(folder / SPARE / f"{row:06}.png", data.train.images[row])


def _read_idx(root: Path) -> Labelled | None:
    if _idx_file(root, "train", "images-idx3") is None:
        return None
    parts = []
    for name in _PARTS:
        images, labels = _idx(root, _IDX_PARTS[name], "images-idx3"), _idx(root, _IDX_PARTS[name], "labels-idx1")
        parts.append(_part(root, Stored(images), labels))
    classes = tuple(str(i) for i in range(1 + int(max(part.labels.max() for part in parts))))
    return Labelled(root, classes, *parts)


def _idx_file(root: Path, part: str, what: str) -> Path | None:
    names = [f"{part}-{what}-ubyte", f"{part}-{what}-ubyte.gz"]
    return next((root / name for name in names if (root / name).is_file()), None)


def _idx(root: Path, part: str, what: str) -> U8:
    """An idx file: two zero bytes, type, number of axes, their lengths (big-endian), the values."""
    path = _idx_file(root, part, what)
    if path is None:
        raise DataError(f"{root}: expected {part}-{what}-ubyte (or .gz) beside the others; get the whole set")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, axes = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
        if zeros or kind != _IDX_UINT8:
            raise ValueError(f"type {kind}, expected unsigned bytes ({_IDX_UINT8})")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (ValueError, struct.error, OSError, EOFError) as error:
        raise DataError(f"{path}: not an idx file of bytes ({error}); get it again") from error


def _read_npz(root: Path) -> Labelled | None:
    files = {name: [f for f in sorted(root.glob("*.npz")) if name in f.name] for name in _PARTS}
    if not all(files.values()):
        return None
    for name, found in files.items():
        if len(found) > 1:
            some = ", ".join(f.name for f in found)
            raise DataError(f"{root}: expected one {name} file, found {some}; keep one of them here")
    arrays = [_arrays(files[name][0]) for name in _PARTS]
    parts = [_npz_part(files[name][0], found) for name, found in zip(_PARTS, arrays, strict=True)]
    highest = int(max(part.labels.max() for part in parts))
    classes = tuple(map(str, arrays[0].get("classes", np.arange(highest + 1)).tolist()))
    if highest >= len(classes):
        raise DataError(f"{root}: label {highest}, but only {len(classes)} classes are named; get the files again")
    return Labelled(root, classes, *parts)


def _arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an npz file of plain arrays ({error}); get it again") from error


def _npz_part(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> Part:
    if "labels" in arrays and {"jpeg", "offsets"} <= set(arrays):
        encoded = Encoded(path, arrays["jpeg"].astype(np.uint8), arrays["offsets"].astype(np.int64))
        return _part(path, encoded, arrays["labels"])
    if {"labels", "images"} <= set(arrays):
        images = arrays["images"]
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise DataError(
                f"{path}: expected images (n, H, W) or (n, H, W, 3) uint8, got {images.shape} {images.dtype}"
            )
        return _part(path, Stored(images.astype(np.uint8)), arrays["labels"])
    raise DataError(f"{path}: expected arrays labels with images, or with jpeg and offsets, got {', '.join(arrays)}")


def _read_folders(root: Path) -> Labelled | None:
    found = class_folders(root)
    if found is None:
        return None
    parts = []
    for name in _PARTS:
        items = [(i, item) for i, kind in enumerate(found) for item in found[kind][name]]
        labels = np.array([i for i, _ in items], np.int64)
        parts.append(_part(root / name, Pictures([item for _, item in items]), labels))
    return Labelled(root, tuple(found), *parts)


def _part(where: Path, images: ImageSource, labels: npt.NDArray[np.generic]) -> Part:
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{where}: expected one label a picture, got {len(images)} pictures and {len(labels)} labels")
    return Part(images, labels.astype(np.int64).reshape(-1))


def _write(path: Path, image: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
