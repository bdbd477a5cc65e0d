"""`engine export`: what is written runs by itself in its runtime and gives the engine's numbers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino
import pytest

import kernels
from engine import bundle as bundles
from engine.cli import main
from engine.errors import BackendError, UsageError
from engine.export import agreement, registry
from engine.export.base import ExportOptions, refuse_others
from engine.export.openvino import convert
from engine.export.record import Agreement, Record
from engine.maps import MapHead
from engine.serving.base import ConstantPredictor, RawBatch
from engine.serving.select import open_local


@pytest.fixture
def source(tiny):
    return bundles.read(tiny.path)


@pytest.fixture
def images():
    return np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def options(source, out, precision="fp32", **others):
    """Of targets that take what a bundle has."""

    def recalibrate(*_):
        pytest.fail("recalibration was asked for")

    return ExportOptions(source, out, recalibrate, precision, **others)


def onnx_features(folder, images):
    return ort.InferenceSession(folder / "network.onnx").run(["features"], {"image": images})[0]


def openvino_features(folder, images):
    compiled = openvino.Core().compile_model(folder / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"image": images})["features"]


@pytest.mark.parametrize(("target", "run"), [("onnx", onnx_features), ("openvino", openvino_features)])
def test_the_files_and_their_record_are_all_that_is_needed(target, run, source, images, tmp_path):
    """Scores by the exported files alone, through the smoothing and the tensors that the record names."""
    registry.get(target).export(options(source, tmp_path / "out"))
    made = json.loads((tmp_path / "out/export.json").read_text())
    gaussian = kernels.Gaussian.load(tmp_path / "out" / made["gaussian"])
    distances = kernels.mahalanobis_map(run(tmp_path / "out", images), gaussian)
    assert distances.shape[1:] == tuple(made["grid"])
    expected = open_local(source, "onnx", "fp32", threads=1).predict(images)
    size = made["input"]
    scores, _ = MapHead(tuple(made["grid"]), size["height"], size["width"], made["smoothing_sigma_px"])(distances)
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-3)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_record_names_tensors_files_and_hashes(target, source, tmp_path):
    registry.get(target).export(options(source, tmp_path / "out"))
    made = json.loads((tmp_path / "out/export.json").read_text())
    assert made["tensors"] == {
        "inputs": [{"name": "image", "dtype": "uint8", "shape": ["N", 64, 64, 3]}],
        "outputs": [{"name": "features", "dtype": "float32", "shape": ["N", 4, 8, 8]}],
    }
    written = {path.name: path for path in (tmp_path / "out").iterdir() if path.name != "export.json"}
    assert set(written) == {file["path"] for file in made["files"]}
    for file in made["files"]:
        assert hashlib.sha256(written[file["path"]].read_bytes()).hexdigest() == file["sha256"]
    assert (made["model"], made["precision"]) == ("tiny@1", "fp32")
    assert made["calibration"]["image"] == {"threshold": 6.0, "width": 1.0}


def test_openvino_says_that_a_full_disk_is_full(source, tmp_path):
    (tmp_path / "network.bin").symlink_to("/dev/full")
    with pytest.raises(BackendError, match=r"cannot write it .* MiB are free"):
        convert(source.file(source.executable("fp32").network), tmp_path / "network.xml")


def test_openvino_s_agreement_is_measured(source, tmp_path):
    document = registry.get("openvino").export(options(source, tmp_path / "out"))
    assert document["agreement"]["n_images"] == 4
    assert document["agreement"]["score"] < 1e-4
    assert document["agreement"]["map"] < 1e-4


def test_what_disagrees_is_refused(source, tmp_path):
    wrong = agreement.compare(ConstantPredictor(), source, "fp32", agreement.noise(source))
    with pytest.raises(BackendError, match=r"scores differ from ONNX Runtime's by .* expected at most 0.001 in fp32"):
        agreement.require(wrong, "fp32", tmp_path)
    for bad in (Agreement(1, float("nan"), 0.0), Agreement(1, 0.0, 0.06), Agreement(1, 0.06, 0.0)):
        with pytest.raises(BackendError):
            agreement.require(bad, "int8", tmp_path)
    agreement.require(Agreement(1, 1e-4, 1e-4), "fp32", tmp_path)


class Off:
    """ONNX Runtime's scores and maps, each off by a share of its largest value."""

    backend, precision = "off", "fp32"

    def __init__(self, source, score, map):
        self._right, self._score, self._map = open_local(source, "onnx", "fp32", threads=1), score, map

    def predict(self, images):
        raw = self._right.predict(images)
        return RawBatch(raw.scores - self._score * raw.scores.max(), raw.maps + np.float32(self._map * raw.maps.max()))

    def close(self):
        self._right.close()


def test_scores_and_maps_are_compared_each(source):
    found = agreement.compare(Off(source, 0.25, 0.5), source, "fp32", agreement.noise(source))
    assert (found.score, found.map) == (pytest.approx(0.25), pytest.approx(0.5))


def test_an_older_export_is_replaced_and_nothing_else(source, tmp_path):
    out = tmp_path / "out"
    registry.get("openvino").export(options(source, out))
    registry.get("onnx").export(options(source, out))
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "gaussian.safetensors", "network.onnx"]
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="exists and is not an export"):
        registry.get("onnx").export(options(source, tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_a_precision_that_the_bundle_has_not_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="no int8 executable was calibrated"):
        registry.get("onnx").export(options(source, tmp_path / "out", "int8"))
    assert not list(tmp_path.iterdir())


def test_the_command_prints_one_document(tiny, tmp_path, capsys):
    given = ["export", str(tiny.path), "--target", "onnx", "--out", str(tmp_path / "out")]
    assert main([*given, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {*Record.__struct_fields__, "out", "next"}
    assert main(given) == 0
    assert "network.onnx" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_options_of_other_targets_are_refused(target):
    for name, value in {"data": Path("x"), "batch": "1,2,3", "version_compatible": True}.items():
        flag = "--" + name.replace("_", "-")
        with pytest.raises(UsageError, match=f"{flag}: not an option of --target {target}"):
            refuse_others(options(None, Path("out"), **{name: value}), registry.get(target))


def test_an_unknown_target_is_refused():
    with pytest.raises(UsageError, match="--target jar: unknown; choose one of onnx, openvino, tensorrt"):
        registry.get("jar")
