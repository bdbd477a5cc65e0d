"""The pictures a benchmark runs on: real ones where there are any, as JPEG files in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from engine.contract import Manifest
from engine.errors import DataError
from engine.producer.encoding import encode
from engine.producer.sources import Picture, picture_files
from engine.types import U8

COUNT = 48
_SYNTHETIC = "synthetic texture: no real pictures were found, give --data"


@dataclass(frozen=True, slots=True)
class Pictures:
    """Encoded pictures in `folder`; `source` says where they came from."""

    folder: Path
    source: str
    n: int
    mean_bytes: int

    def describe(self) -> dict[str, object]:
        """For the report."""
        return {"source": self.source, "n": self.n, "mean_bytes": self.mean_bytes, "codec": "jpeg"}


def prepare(data: Path | None, manifest: Manifest, folder: Path) -> Pictures:
    """Fill `folder` with JPEG pictures: of `data`, else of the training set, the demo's set, or a made-up texture.

    Raises DataError where `data` was given and holds no pictures.
    """
    source, files = _find(data, manifest)
    encoded = [encode(Picture(file.name, file=file), "jpeg").data for file in _spread(files)]
    if not encoded:
        encoded = [encode(Picture(None, image=image), "jpeg").data for image in _textures(manifest)]
    for index, blob in enumerate(encoded):
        (folder / f"{index:04d}.jpg").write_bytes(blob)
    return Pictures(folder, source, len(encoded), sum(map(len, encoded)) // len(encoded))


def _find(data: Path | None, manifest: Manifest) -> tuple[str, list[Path]]:
    if data is not None:
        if not (files := _test_files(data)):
            raise DataError(f"{data}: no pictures here; give --data a folder of pictures, or leave it out")
        return data.name, files
    training = Path(manifest.training.path)
    if training.is_dir() and (files := _test_files(training)):
        return training.name, files
    if files := _elpv_files():
        return "elpv-dataset", files
    return _SYNTHETIC, []


def _test_files(data: Path) -> list[Path]:
    """A folder's pictures; of an MVTec AD layout those of `test`, which lies beside training pictures and masks."""
    if not data.exists():
        raise DataError(f"{data}: no such folder; give --data a folder of pictures")
    test = data / "test"
    return picture_files(test if test.is_dir() else data)


def _elpv_files() -> list[Path]:
    try:
        package = Path(str(resources.files("elpv_dataset")))
    except ModuleNotFoundError:
        return []
    return picture_files(package / "data" / "images")


def _spread(files: list[Path]) -> list[Path]:
    """At most COUNT files, evenly spread over the list, so that every kind of picture is among them."""
    step = max(1, len(files) // COUNT)
    return files[::step][:COUNT]


def _textures(manifest: Manifest) -> list[U8]:
    """Smooth noise with fine grain, (H, W, 3), of the middle of the sizes that the bundle was trained on."""
    height, width = (sum(pair) // 2 for pair in (manifest.training.height_range, manifest.training.width_range))
    rng = np.random.default_rng(0)
    return [_texture(rng, height, width) for _ in range(COUNT // 4)]


def _texture(rng: np.random.Generator, height: int, width: int) -> U8:
    coarse = cv2.resize(rng.uniform(60, 190, (9, 9, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)
