"""Whole trainings on tiles: small defects in pictures larger than the network, judged frame by frame as served."""

from dataclasses import dataclass, replace

import cv2
import msgspec
import numpy as np
import pytest
import torch

import kernels
from engine import bundle
from engine.api import load
from engine.cli.fuse import opener
from engine.contract import Tiling
from engine.errors import UsageError
from engine.serving.select import open_local
from engine.tiling import Layout
from trainers import registry
from trainers.base import TrainOptions
from trainers.calibration import record
from trainers.calibration.holdout import held_out_rows
from trainers.dataset import tiles
from trainers.ensemble.fuse import FuseOptions, fuse
from trainers.fyd import Fyd, Settings
from trainers.learning import learnt
from trainers.learning.learnt import Learnt
from trainers.network import gaussian
from trainers.network.features import Extractor
from trainers.progress import RecordedProgress

HEIGHT, WIDTH, SIDE = 120, 200, 64
SPOT = (slice(70, 75), slice(131, 136))


def draw(seed, defect=False):
    """(120, 200, 3) grey stripes and grain; a defective one has a dark spot of 5 px."""
    random = np.random.default_rng(seed)
    stripes = 128 + 30 * np.sin(np.arange(WIDTH) / 9 + random.uniform(0, 6))
    image = stripes + random.normal(0, 4, (HEIGHT, WIDTH))
    if defect:
        image[SPOT] -= 35
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


GOOD = np.stack([draw(100 + i) for i in range(8)])
BAD = np.stack([draw(200 + i, defect=True) for i in range(8)])


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "plates"
    folder.mkdir()
    for i in range(24):
        cv2.imwrite(str(folder / f"{i:02}.png"), draw(i))
    return folder


@pytest.fixture(scope="module")
def make(plates, tmp_path_factory):
    """Trains a method's smallest bundle."""

    def train(trainer="fyd", **changes):
        folder = tmp_path_factory.mktemp("out")
        options = TrainOptions(plates, folder / folder.name, threads=1, target_fpr=0.05)
        method = registry.get(trainer) if isinstance(trainer, str) else trainer
        return method.train(replace(options, **changes), RecordedProgress()).bundle

    return train


@pytest.fixture(scope="module")
def tiled(make):
    return make(Fyd(Settings(channels=32)), tile=SIDE)


@pytest.fixture(scope="module")
def whole(make):
    return make(Fyd(Settings(channels=32, int8=False)), image_size=SIDE)


def scores(path, images, backend="onnx", precision="fp32"):
    predictor = open_local(bundle.read(path), backend, precision, threads=1)
    try:
        return predictor.predict(images).scores
    finally:
        predictor.close()


def test_the_manifest_says_how_pictures_are_cut(tiled):
    manifest = bundle.read(tiled).manifest
    assert manifest.tiling == Tiling(side_px=SIDE, cell_px=8, overlap=0.25)
    assert (manifest.input.height, manifest.input.width, manifest.grid) == (HEIGHT, WIDTH, (15, 25))
    assert (manifest.settings["tile_px"], manifest.settings["tile_overlap"]) == (SIDE, 0.25)
    assert {e.calibration.image_estimate.n_images for e in manifest.executables.values()} == {24}  # pictures, not tiles


def test_a_bundle_without_the_field_is_read_as_one_of_whole_pictures(whole):
    written = msgspec.json.decode((whole / "bundle.json").read_bytes())
    assert written.pop("tiling") is None
    (whole / "bundle.json").write_bytes(msgspec.json.encode(written))
    assert not bundle.read(whole).tiled


def test_small_defects_are_seen_that_a_shrunk_picture_hides(tiled, whole):
    found = scores(tiled, BAD), scores(tiled, GOOD)
    assert found[0].min() > found[1].max()
    shrunk = np.stack([cv2.resize(image, (SIDE, SIDE)) for image in (*BAD, *GOOD)])
    hidden = scores(whole, shrunk)
    assert hidden[:8].min() < hidden[8:].max()
    assert margin(*found) > 1.5 * margin(hidden[:8], hidden[8:])


def margin(bad, good):
    """How far apart they lie, in standard deviations of good ones."""
    return (bad.mean() - good.mean()) / good.std()


def test_frames_of_any_size_get_maps_and_masks_of_their_own_size(tiled):
    large = cv2.resize(BAD[0], (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_NEAREST)
    with load(tiled, backend="onnx", threads=1) as model:
        same, other = model.predict([BAD[0], large])
        cut = model.predict(BAD[0], region={"ignore": [[[110, 50], [160, 50], [160, 100], [110, 100]]]})[0]
    assert same.pred_label
    x, y, width, height = same.regions[0].bbox
    assert x <= 133 < x + width
    assert y <= 72 < y + height
    assert same.pred_mask.shape == same.anomaly_map.shape == (HEIGHT, WIDTH)
    assert other.pred_mask.shape == other.anomaly_map.shape == (2 * HEIGHT, 2 * WIDTH)
    assert other.raw_score == pytest.approx(same.raw_score, rel=1e-3)
    assert cut.raw_score < same.raw_score


@pytest.mark.parametrize(("precision", "rtol"), [("fp32", 1e-3), ("int8", 0.1)])
def test_onnxruntime_and_openvino_agree(tiled, precision, rtol):
    images = np.concatenate([BAD[:2], GOOD[:2]])
    a, b = (scores(tiled, images, backend, precision) for backend in ("onnx", "openvino"))
    np.testing.assert_allclose(a, b, rtol=rtol)


def test_a_held_out_picture_has_no_tile_in_its_model(tiled):
    """The record's score of one picture, from the features of the tiles of all others."""
    found = bundle.read(tiled)
    layout, extractor = Layout.of(found.manifest), Extractor(found.file(found.executable("fp32").network), 1)
    cut = [np.stack([layout.tile(draw(i), k) for k in range(len(layout))]) for i in range(24)]
    values = [extractor(tiles).values for tiles in cut]
    total = kernels.Accumulator(extractor.channels, *extractor.grid)
    total.add(np.concatenate(values))
    eps = gaussian.diagonal(total, found.manifest.settings["regularisation"])
    parts = np.array_split(np.arange(24), 20)
    kept = record.read(found, "fp32")
    for part in (parts[0], parts[-1]):
        others = np.concatenate([values[i] for i in range(24) if i not in part])
        fitted = kernels.fit(others, eps)
        detector = gaussian.Detector(extractor, fitted, layout.head(found.manifest.smoothing_sigma_px), layout)
        for i in part:
            assert kept.scores[i] == pytest.approx(detector.score(draw(i)[None])[0][0], rel=1e-3)


class Darkness(torch.nn.Module):
    """(N, H, W, 3) -> how dark each 4 x 4 cell is (N, H / 4, W / 4), and the picture's darkest pixel (N,)."""

    def forward(self, images):
        dark = 1 - images.float().mean(dim=3) / 255
        return torch.nn.functional.avg_pool2d(dark[:, None], 4)[:, 0], dark.amax(dim=(1, 2))


@dataclass(frozen=True)
class DarkSettings:
    side_px: int = SIDE
    cell_px: int = 4

    def record(self):
        return {}


class Dark:
    """A method whose network is known beforehand and gives scores of its own."""

    name = "dark"
    takes = frozenset()

    def learn(self, job):
        self.learnt_from = job.pictures.learning.take(range(len(job.pictures.learning)))
        return Learnt(Darkness(), 2.0, {}, (), scores=True)

    def train(self, options, progress):
        return learnt.train(self, DarkSettings(), self.learn, options, progress)


def test_a_tiled_member_shares_no_network_with_one_of_whole_pictures(tiled, whole, plates, tmp_path):
    """Though both begin alike: one sees tiles. Its copies are judged by folds that no tile of the picture is in."""
    options = FuseOptions((tiled, whole), plates, tmp_path / "both", target_fpr=0.05)
    fused = bundle.read(fuse(options, opener(1), RecordedProgress()).bundle)
    assert [member.network for member in fused.ensemble("fp32").members] == [None, None]
    sheets = np.stack([fused.sheet.fit(image) for image in BAD])
    found = open_local(fused, "onnx", "fp32", 1).predict(sheets).members
    for name, member in fused.members.items():
        view = fused.sheet.view(sheets, member.sheet.sizes[0])
        np.testing.assert_array_equal(found[name], scores(member.path, view))


def test_a_network_learns_from_tiles_and_is_calibrated_on_whole_pictures_as_served(plates, tmp_path):
    method = Dark()
    options = TrainOptions(plates, tmp_path / "bundle", threads=1, target_fpr=0.05, tile=SIDE, overlap=0.5)
    report = method.train(options, RecordedProgress())
    found, held = bundle.read(report.bundle), held_out_rows(24)
    layout = Layout.of(found.manifest)
    training = [draw(i) for i in range(24) if i not in held]
    cut = [layout.tile(image, k) for image in training for k in range(len(layout))]
    np.testing.assert_array_equal(method.learnt_from, np.stack(cut))
    kept = record.read(found, "fp32")
    images = np.stack([draw(i) for i in held])
    np.testing.assert_allclose(kept.scores, 1 - images.mean(axis=3).min(axis=(1, 2)) / 255, rtol=1e-4)
    np.testing.assert_allclose(kept.scores, scores(report.bundle, images), rtol=1e-6)
    cells = 1 - images.mean(axis=3).reshape(-1, 30, 4, 50, 4).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(kept.grids, cells, rtol=1e-3)
    assert found.calibration("fp32").image_estimate.n_images == len(held)


def test_of_very_many_tiles_some_are_learnt_from(plates, monkeypatch, tmp_path):
    monkeypatch.setattr(tiles, "MOST_TILES", 50)
    method = Dark()
    method.train(TrainOptions(plates, tmp_path / "bundle", threads=1, tile=SIDE), RecordedProgress())
    assert len(method.learnt_from) == 50


def test_what_cannot_be_cut_is_refused_in_one_line(make):
    with pytest.raises(UsageError, match="200 x 120 px fit into one tile"):
        make(tile=256)
    with pytest.raises(UsageError, match="--overlap: is of tiles"):
        make(overlap=0.5, image_size=SIDE)
    with pytest.raises(UsageError, match="--image-size 100: expected a multiple of"):
        make(tile=100)
    with pytest.raises(UsageError, match="the map of a tile has 1 cells"):
        make("droc", tile=SIDE, patch_size=SIDE, pretext="random", width="narrow")
