"""The way from a learnt network that gives the map itself to a bundle, with a network that needs no learning."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from engine import bundle
from engine.errors import DataError
from engine.maps import MapHead
from engine.serving.select import open_local
from trainers.base import TrainOptions
from trainers.calibration.holdout import held_out_rows
from trainers.calibration.thresholds import PixelScores, calibrate
from trainers.dataset.good import Pictures, read_dataset
from trainers.learning import learnt
from trainers.learning.learnt import Learnt
from trainers.progress import RecordedProgress

SIDE, SIGMA_PX = 64, 2.0


@dataclass(frozen=True)
class Settings:
    side_px: int = SIDE

    def record(self):
        return {"side_px": self.side_px}


class Darkness(torch.nn.Module):
    """(N, H, W, 3) -> (N, H / 4, W / 4): how dark each cell is."""

    def forward(self, images):
        mean = images.float().mean(dim=3)[:, None]
        return 1 - torch.nn.functional.avg_pool2d(mean, 4)[:, 0] / 255


class Dark:
    """A method whose network is known beforehand; it notes what it was given."""

    name = "dark"
    takes = frozenset()

    def __init__(self):
        self.seen = set()

    def learn(self, job):
        self.seen = digests(job.pictures.training.take(range(len(job.pictures.training))))
        checkpoint = job.checkpoint(".part")
        checkpoint.save(1, {})
        return Learnt(Darkness(), SIGMA_PX, {"loss": 0.25}, (checkpoint,))

    def train(self, options, progress):
        return learnt.train(self, Settings(), self.learn, options, progress)

    def variants(self, protocol):
        return []


def digests(images):
    return {hashlib.sha256(image.tobytes()).hexdigest() for image in images}


@pytest.fixture(scope="module")
def good(parts):
    items = read_dataset(parts).train
    return np.stack([Pictures(items)[i] for i in range(len(items))])


@pytest.fixture(scope="module")
def dark(parts, tmp_path_factory):
    method = Dark()
    options = TrainOptions(data=parts, out=tmp_path_factory.mktemp("dark") / "bundle", threads=1, target_fpr=0.1)
    return method, method.train(options, RecordedProgress())


def test_learning_never_sees_a_held_out_picture(dark, good):
    method, _ = dark
    held = held_out_rows(24)
    assert method.seen == digests(np.delete(good, held, axis=0))
    assert not method.seen & digests(good[held])


def test_thresholds_come_from_the_held_out_pictures(dark, good):
    """In float64: darkness of 4 x 4 cells, upsampled and smoothed, of the held-out pictures only."""
    _, report = dark
    held = good[held_out_rows(24)].astype(np.float64)
    cells = 1 - held.mean(axis=3).reshape(len(held), 16, 4, 16, 4).mean(axis=(2, 4)) / 255
    scores, maps = MapHead((16, 16), SIDE, SIDE, SIGMA_PX)(cells.astype(np.float32))
    pixels = PixelScores()
    pixels.add(maps)
    want, got = calibrate(scores, pixels, folds=1, target_fpr=0.1), report.calibration["fp32"]
    assert got.image.threshold == pytest.approx(want.image.threshold, rel=1e-4)
    assert got.pixel.threshold == pytest.approx(want.pixel.threshold, rel=1e-4)
    assert got.image_estimate == want.image_estimate
    assert (got.image_estimate.n_images, got.image_estimate.folds) == (len(held), 1)


def test_the_grid_is_served_without_a_gaussian(dark, good):
    _, report = dark
    loaded = bundle.read(report.bundle)
    assert loaded.executable("fp32").gaussian is None
    assert loaded.manifest.grid == (16, 16)
    assert loaded.manifest.report == {"loss": 0.25, "n_learnt": 19, "n_held_out": 5}
    cells = 1 - good[:3].astype(np.float64).mean(axis=3).reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)) / 255
    want, _ = MapHead((16, 16), SIDE, SIDE, SIGMA_PX)(cells.astype(np.float32))
    for backend in ("onnx", "openvino"):
        scores = open_local(loaded, backend, "fp32", threads=1).predict(good[:3]).scores
        np.testing.assert_allclose(scores, want, rtol=1e-4)


def test_nothing_is_left_beside_the_bundle(dark):
    _, report = dark
    assert list(report.bundle.parent.iterdir()) == [report.bundle]


def test_too_few_pictures_to_hold_some_out_are_refused(parts, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((parts / "train/good").iterdir())[:19]:
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="at least 20 good pictures"):
        Dark().train(TrainOptions(folder, tmp_path / "out"), RecordedProgress())
    assert not (tmp_path / "out").exists()
