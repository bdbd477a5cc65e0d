"""Whole trainings of FYD: what a bundle holds, that it is served as trained (test_contract.py has what all share)."""

from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest
import torch

import kernels
from engine import bundle
from engine.alignment import to_picture
from engine.contract import MANIFEST_NAME
from engine.maps import MapHead
from engine.serving.select import open_local
from engine.sheet import Sheet
from trainers import backbones
from trainers.base import TrainOptions
from trainers.dataset import resized
from trainers.dataset.good import Pictures, read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.fyd import Fyd, Settings
from trainers.fyd.learn import learn
from trainers.fyd.model import Network, pick_channels
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.passes import seeded, torch_threads
from trainers.network.features import Extractor
from trainers.progress import RecordedProgress

SIDE = 64


def options(parts, out, **changes):
    return replace(TrainOptions(data=parts, out=out, image_size=SIDE, threads=1, target_fpr=0.05), **changes)


@pytest.fixture(scope="module")
def plain(trained):
    """The default method without learnt parts, in both precisions."""
    return trained("fyd")


LEARNT = Settings(epochs=2, batch_size=12, channels=60, side_px=SIDE, int8=False, lr_others=0.01, fca_bound=0.3)


@pytest.fixture(scope="module")
def learnt(parts, resnet_file, tmp_path_factory):
    """All learnt parts, on a backbone of random weights."""
    out = tmp_path_factory.mktemp("out") / "learnt"
    return Fyd(LEARNT).train(options(parts, out, backbone=resnet_file), RecordedProgress())


def images(parts, part="test"):
    items = getattr(read_dataset(parts), part)
    return np.stack([Pictures(items)[i] for i in range(len(items))])


def judge(report, backend="onnx", precision="fp32"):
    loaded = bundle.read(report.bundle)
    detector = open_local(loaded, backend, precision, threads=1)
    return Judge(detector.predict, Sheet(((SIDE, SIDE),)), loaded.executable(precision).calibration)


def test_both_precisions_are_in_the_report(plain):
    assert set(plain.to_json()["calibration"]) == {"fp32", "int8"}


def test_the_bundle_verifies_and_says_how_it_was_made(plain, parts):
    manifest = bundle.read(plain.bundle).manifest
    assert manifest.model == f"bundle@{plain.version}"
    assert (manifest.input.height, manifest.input.width, manifest.grid) == (SIDE, SIDE, (8, 8))
    assert manifest.training.n_good == 24
    assert manifest.settings["seed"] == 0
    assert manifest.settings["epochs"] == 0
    assert manifest.report["gaussian_bytes"] > 0
    assert {"torch", "onnxruntime", "anomaly-engine"} <= set(manifest.versions)
    for executable in manifest.executables.values():
        assert executable.calibration.image_estimate.n_images == 24
        assert executable.calibration.image_estimate.folds == 20


def test_defects_are_told_from_good_parts(plain, parts):
    for precision in ("fp32", "int8"):
        found = evaluate(judge(plain, precision=precision), read_dataset(parts), RecordedProgress())
        assert found.overall.image_auroc == 1.0
        assert found.overall.pixel_auroc > 0.9


def test_int8_scores_are_near_those_of_fp32(plain, parts):
    pictures = images(parts)
    fp32, int8 = (judge(plain, precision=p).predict(pictures).scores for p in ("fp32", "int8"))
    assert np.corrcoef(fp32, int8)[0, 1] > 0.95
    assert not np.array_equal(fp32, int8)


@pytest.mark.parametrize("name", ["plain", "learnt"])
def test_onnxruntime_and_openvino_agree(name, parts, request):
    report = request.getfixturevalue(name)
    pictures = images(parts)
    a, b = (judge(report, backend).predict(pictures) for backend in ("onnx", "openvino"))
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-3)
    np.testing.assert_allclose(a.maps, b.maps, rtol=1e-3, atol=1e-2)


def test_openvino_loads_int8(plain, parts):
    pictures = images(parts)
    a, b = (judge(plain, backend, "int8").predict(pictures).scores for backend in ("onnx", "openvino"))
    np.testing.assert_allclose(a, b, rtol=0.1)


def files(folder: Path):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_bundle_holds_only_what_the_manifest_names(plain, learnt):
    for report in (plain, learnt):
        executables = bundle.read(report.bundle).manifest.executables.values()
        parts = [part for e in executables for part in (e.network, e.gaussian, e.held_out, e.reference)]
        named = {part.path for part in parts if part is not None}
        assert set(files(report.bundle)) == named | {MANIFEST_NAME}
        assert list(report.bundle.parent.iterdir()) == [report.bundle]  # no scratch, no checkpoint


def test_learnt_maps_come_back_to_the_picture(learnt, parts):
    """The served map equals: distances of the aligned grid, sampled at the network's positions, smoothed."""
    pictures = images(parts)
    extractor = Extractor(learnt.bundle / "network.onnx", 1)
    seen = extractor(pictures)
    assert seen.positions is not None
    model = kernels.Gaussian.load(learnt.bundle / "gaussian.safetensors")
    grids = kernels.mahalanobis_map(seen.values, model)
    centres = (2 * np.arange(8) + 1) / 8 - 1
    at_home = np.stack(np.meshgrid(centres, centres), axis=-1)
    assert np.abs(seen.positions - at_home).max() > 0.05  # something is aligned
    back = np.empty_like(grids)
    for n, i, j in np.ndindex(back.shape):
        x, y = (np.clip(((seen.positions[n, i, j] + 1) * 8 - 1) / 2, 0, 7)).tolist()
        a, b = min(int(y), 6), min(int(x), 6)
        corner = grids[n, a : a + 2, b : b + 2]
        back[n, i, j] = [a + 1 - y, y - a] @ corner @ [b + 1 - x, x - b]
    rows = cv2.resize(back.transpose(1, 2, 0), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    want = cv2.GaussianBlur(rows, (17, 17), 2.0, borderType=cv2.BORDER_REFLECT).transpose(2, 0, 1)
    np.testing.assert_allclose(judge(learnt).predict(pictures).maps, want, rtol=1e-3, atol=1e-2)


def test_learnt_calibration_says_what_its_pictures_have_been_used_for(learnt, plain):
    assert "the learnt parts have seen" in learnt.calibration["fp32"].image_estimate.note
    assert "learnt" not in plain.calibration["fp32"].image_estimate.note
    assert learnt.measured["loss"] is not None


# The network file


def torchs(settings, spec, parts, tmp_path):
    """The network of a training in torch, trained once more."""
    backbone = backbones.load(spec, SIDE)
    with seeded(0):
        network = Network(backbone, settings, pick_channels(backbone, settings.channels, 0)).eval()
    if settings.learns:
        pictures = resized.read(Pictures(read_dataset(parts).train), SIDE, RecordedProgress())
        with torch_threads(
            1
        ):  # as in training; sums of several threads differ in their last bits, which learning widens
            learn(network, pictures, 0, Checkpoint.beside(tmp_path / "again", ""), RecordedProgress())
    return network


@pytest.mark.parametrize("name", ["plain", "learnt"])
def test_torch_and_onnx_give_the_same_scores(name, parts, resnet_file, request, tmp_path):
    report = request.getfixturevalue(name)
    if name == "plain":
        network = torchs(Settings(side_px=SIDE), "efficientnet_lite0", parts, tmp_path)
    else:
        network = torchs(LEARNT, resnet_file, parts, tmp_path)
    for pictures in (images(parts), images(parts)[:1]):
        with torch.no_grad():
            out = network(torch.from_numpy(pictures))
        features, positions = out if name == "learnt" else (out, None)
        grids = kernels.mahalanobis_map(features.numpy(), kernels.Gaussian.load(report.bundle / "gaussian.safetensors"))
        if positions is not None:
            grids = to_picture(grids, positions.numpy())
        scores, _ = MapHead((8, 8), SIDE, SIDE, 2.0)(grids)
        np.testing.assert_allclose(judge(report).predict(pictures).scores, scores, rtol=1e-3)


def test_the_graph_keeps_the_contract(plain, learnt):
    for report, outputs in ((plain, ["features"]), (learnt, ["features", "positions"])):
        graph = onnx.load(report.bundle / "network.onnx").graph
        assert [i.name for i in graph.input] == ["image"]
        assert [o.name for o in graph.output] == outputs
        batch, *rest = graph.input[0].type.tensor_type.shape.dim
        assert batch.dim_param
        assert [d.dim_value for d in rest] == [SIDE, SIDE, 3]
        assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert "Pad" not in {node.op_type for node in graph.node}  # computed at run time it would break int8


def test_the_network_file_tells_nothing_of_the_machine(plain):
    model = onnx.load(plain.bundle / "network.onnx")
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"/site-packages/" not in (plain.bundle / "network.onnx").read_bytes()
    assert {opset.version for opset in model.opset_import if opset.domain == ""} == {18}


def test_the_manifest_round_trips(plain):
    manifest = bundle.read(plain.bundle).manifest
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest
