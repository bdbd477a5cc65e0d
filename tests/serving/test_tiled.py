"""A tiled bundle served: every backend gives the definition's maps, alone and as a member of an ensemble."""

import shutil
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from engine import bundle as bundles
from engine.api import load
from engine.cli import app
from engine.config import Runtime
from engine.contract import Input, Manifest, Tiling
from engine.errors import UsageError
from engine.export import registry
from engine.export.base import ExportOptions
from engine.serving import timing
from engine.serving.base import Predictor
from engine.serving.select import open_local, open_predictor

HEIGHT, WIDTH = 108, 136  # 13.5 x 17 cells: the last row ends beyond the picture
IMAGES = np.random.default_rng(4).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)


def cut(folder):
    """Make a tiled bundle of one in a folder: the same network and Gaussian, for larger pictures."""
    manifest = bundles.read(folder).manifest
    changed = msgspec.structs.replace(
        manifest, name="tiled", input=Input(HEIGHT, WIDTH), grid=(14, 17), tiling=Tiling(64, 8, 0.25)
    )
    bundles.write_manifest(folder, changed)


@pytest.fixture(scope="module")
def tiled(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiled") / "tiled"
    shutil.copytree(tiny.path, path)
    cut(path)
    return path


def reference(tiny, train, images):
    """Float64, tile by tile: distances of the definition, a squared sine as weights, cv2's and scipy's map."""
    tops, lefts = (0, 6), (0, 4, 9)  # cells
    window = np.sin(np.pi * (np.arange(8) + 0.5) / 8) ** 2
    window = window[:, None] * window
    features = tiny.features(train)
    mirrored = np.pad(images, ((0, 0), (0, 4), (0, 0), (0, 0)), mode="symmetric")
    total, weight = np.zeros((len(images), 14, 17)), np.zeros((14, 17))
    for top in tops:
        for left in lefts:
            part = tiny.features(mirrored[:, 8 * top : 8 * top + 64, 8 * left : 8 * left + 64])
            place = (slice(top, top + 8), slice(left, left + 8))
            weight[place] += window
            for i in range(8):
                for j in range(8):
                    covariance = np.cov(features[:, :, i, j].T) + 0.01 * np.eye(4)
                    y = part[:, :, i, j] - features[:, :, i, j].mean(axis=0)
                    distance = np.sqrt(np.einsum("nc,cd,nd->n", y, np.linalg.inv(covariance), y))
                    total[:, top + i, left + j] += window[i, j] * distance
    maps = [cv2.resize(grid, (136, 112), interpolation=cv2.INTER_LINEAR)[:HEIGHT] for grid in total / weight]
    return np.stack([gaussian_filter(m, 2.0, mode="reflect", radius=8) for m in maps])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_every_backend_gives_the_definition_s_scores_and_maps(tiny, tiled, pictures, backend):
    predictor = open_local(bundles.read(tiled), backend, "fp32", threads=1)
    raw = predictor.predict(IMAGES)
    predictor.close()
    expected = reference(tiny, pictures, IMAGES)
    np.testing.assert_allclose(raw.maps, expected, rtol=1e-3)
    np.testing.assert_allclose(raw.scores, expected.max(axis=(1, 2)), rtol=1e-3)


@pytest.fixture(scope="module")
def mixed(make_ensemble):
    """An ensemble whose member `twin` is tiled and has the network file of `mixed`, which sees whole pictures."""
    path = make_ensemble()
    cut(path / "members" / "twin")
    manifest = msgspec.json.decode((path / "bundle.json").read_bytes(), type=Manifest)
    spec = manifest.ensembles["fp32"]
    members = tuple(
        msgspec.structs.replace(each, manifest=bundles.describe(path / each.manifest.path, path), network=None)
        for each in spec.members
    )
    ensembles = {"fp32": msgspec.structs.replace(spec, members=members)}
    bundles.write_manifest(path, msgspec.structs.replace(manifest, ensembles=ensembles))
    return path


def test_an_ensemble_has_tiled_members_beside_others(mixed):
    bundle = bundles.read(mixed)
    assert bundle.tiled
    assert bundle.sheet.sizes == ((32, 32), (64, 64), (HEIGHT, WIDTH))
    sheets = np.stack([bundle.sheet.fit(image) for image in IMAGES])
    ensemble = open_local(bundle, "onnx", "fp32", threads=1)
    found = ensemble.predict(sheets)
    for name, own in bundle.members.items():
        alone = open_local(own, "onnx", "fp32", 1).predict(bundle.sheet.view(sheets, own.sheet.sizes[0]))
        np.testing.assert_array_equal(found.members[name], alone.scores)
    assert not np.allclose(found.members["twin"], found.members["mixed"])
    completed = ensemble.complete(sheets, ensemble.screen(sheets))
    np.testing.assert_allclose(completed.scores, found.scores, rtol=1e-12)
    ensemble.close()


def test_one_picture_at_a_time_is_timed_and_predicted(tiled, monkeypatch):
    asked = []
    monkeypatch.setattr(timing, "frames_per_s", lambda predictor, images: asked.append(images.shape))
    timing.main([str(tiled), "fp32", "onnx", "1", "8"])
    with load(tiled, backend="onnx", threads=1) as model:
        monkeypatch.setattr(model, "predictor", Noting(model.predictor, asked))
        assert len(model.predict(list(IMAGES))) == 3
    assert asked == [(1, HEIGHT, WIDTH, 3)] * 4


@dataclass
class Noting:
    """Notes what a predictor is asked."""

    predictor: Predictor
    asked: list[tuple[int, ...]]

    def predict(self, images):
        self.asked.append(images.shape)
        return self.predictor.predict(images)

    def close(self):
        self.predictor.close()


def test_what_takes_whole_pictures_only_refuses_it_in_one_line(tiled, mixed, tmp_path):
    for path in (tiled, mixed):
        found = bundles.read(path)
        for backend in ("triton", "tensorrt"):
            with pytest.raises(UsageError, match=r"is tiled|is an ensemble"):
                open_predictor(found, Runtime(backend=backend), batch_size=2)
    found = bundles.read(tiled)
    for target in ("triton", "tensorrt"):
        options = ExportOptions(found, tmp_path / "out", recalibrate=lambda *_: pytest.fail("too late"))
        with pytest.raises(UsageError, match=f"--target {target}: .* is tiled"):
            registry.get(target).export(options)
    cv2.imwrite(str(tmp_path / "image.png"), IMAGES[0])
    done = CliRunner().invoke(app, ["explain", str(tiled), str(tmp_path / "image.png")])
    assert (done.exit_code, isinstance(done.exception, UsageError)) == (1, True)
    assert "is tiled" in str(done.exception)


def test_an_onnx_export_says_how_pictures_are_cut(tiled, tmp_path):
    options = ExportOptions(bundles.read(tiled), tmp_path / "out", recalibrate=lambda *_: None)
    document = registry.get("onnx").export(options)
    assert document["tiling"] == {"side_px": 64, "cell_px": 8, "overlap": 0.25}
    assert document["tensors"]["inputs"][0]["shape"][1:] == (64, 64, 3)
