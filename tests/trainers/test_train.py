"""Whole trainings: what a bundle holds, that it is served as trained, that it repeats to the bit."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest

import kernels
from engine import bundle
from engine.errors import BundleError, UsageError
from engine.serving.select import open_local
from trainers import gaussian, registry, resized
from trainers.base import TrainOptions
from trainers.data import Pictures, blocks, read_dataset
from trainers.evaluate import Judge, evaluate
from trainers.features import Extractor
from trainers.fyd import Fyd, Settings
from trainers.progress import RecordedProgress

SIDE = 64


def options(parts, out, **changes):
    return replace(TrainOptions(data=parts, out=out, image_size=SIDE, threads=1, target_fpr=0.05), **changes)


@pytest.fixture(scope="module")
def plain(parts, tmp_path_factory):
    """The default method without learnt parts, in both precisions."""
    return registry.get("fyd").train(options(parts, tmp_path_factory.mktemp("out") / "plain"), RecordedProgress())


@pytest.fixture(scope="module")
def learnt(parts, resnet_file, tmp_path_factory):
    """All learnt parts, on a backbone of random weights."""
    trainer = Fyd(Settings(epochs=2, batch_size=12, int8=False, lr_others=0.01, fca_bound=0.3))
    out = tmp_path_factory.mktemp("out") / "learnt"
    return trainer.train(options(parts, out, backbone=resnet_file, channels=60), RecordedProgress())


def images(parts, part="test"):
    items = getattr(read_dataset(parts), part)
    return np.stack([Pictures(items)[i] for i in range(len(items))])


def judge(report, backend="onnx", precision="fp32"):
    loaded = bundle.read(report.bundle)
    detector = open_local(loaded, backend, precision, threads=1)
    return Judge(detector.predict, SIDE, SIDE, loaded.executable(precision).calibration)


def test_the_report_has_the_names_that_scripts_rely_on(plain):
    document = json.loads(json.dumps(plain.to_json()))
    assert {"bundle", "method", "version", "train_s", "calibration"} <= set(document)
    assert document["method"] == "fyd"
    assert document["train_s"] > 0
    assert set(document["calibration"]) == {"fp32", "int8"}
    assert document["calibration"]["fp32"]["image"]["width"] > 0


def test_the_bundle_verifies_and_says_how_it_was_made(plain, parts):
    manifest = bundle.read(plain.bundle).manifest
    assert manifest.model == f"plain@{plain.version}"
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


def test_same_seed_same_bundle(parts, plain, tmp_path):
    again = registry.get("fyd").train(options(parts, tmp_path / "plain"), RecordedProgress())
    assert files(again.bundle) == files(plain.bundle)


def test_the_bundle_holds_only_what_the_manifest_names(plain, learnt):
    for report, count in ((plain, 5), (learnt, 3)):
        assert len(files(report.bundle)) == count
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
    want = cv2.GaussianBlur(rows, (33, 33), 4.0, borderType=cv2.BORDER_REFLECT).transpose(2, 0, 1)
    np.testing.assert_allclose(judge(learnt).predict(pictures).maps, want, rtol=1e-3, atol=1e-2)


def test_learnt_calibration_says_what_its_pictures_have_been_used_for(learnt, plain):
    assert "the learnt parts have seen" in learnt.calibration["fp32"].image_estimate.note
    assert "learnt" not in plain.calibration["fp32"].image_estimate.note
    assert learnt.measured["loss"] is not None


def test_a_folder_that_is_no_bundle_is_not_overwritten(parts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        registry.get("fyd").train(options(parts, tmp_path / "out"), RecordedProgress())


# The Gaussian by itself


@pytest.fixture(scope="module")
def extractor(plain):
    return Extractor(plain.bundle / "network.onnx", 1)


@pytest.fixture(scope="module")
def pictures(parts):
    return resized.read(Pictures(read_dataset(parts).train), SIDE, RecordedProgress())


RECIPE = gaussian.Recipe(regularisation=0.1, smoothing_sigma_px=4.0, target_fpr=0.05)


def naive(train, test, eps):
    """Float64 distances (n, h, w) of features to the Gaussian of others."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    out = np.empty((len(test), *test.shape[2:]))
    for i, j in np.ndindex(*test.shape[2:]):
        mean = train[:, :, i, j].mean(0)
        inverse = np.linalg.inv(np.cov(train[:, :, i, j].T) + np.diag(eps))
        y = test[:, :, i, j] - mean
        out[:, i, j] = np.sqrt(np.einsum("nc,cd,nd->n", y, inverse, y))
    return out


def test_thresholds_rest_on_models_without_the_picture(extractor, pictures):
    """Held-out scores equal those of Gaussians fitted from scratch on the other blocks, in float64."""
    features = extractor.of(pictures, RecordedProgress())
    fitted = gaussian.fit(extractor, gaussian.Split(pictures, pictures.subset([])), RECIPE, RecordedProgress())
    variance = np.asarray(features.values, np.float64).var(axis=0, ddof=1).mean(axis=(1, 2))
    eps = 0.1 * np.maximum(variance, 1e-3 * variance.mean()) + 1e-6
    np.testing.assert_allclose(fitted.detector.gaussian.eps, eps, rtol=1e-5)
    held_out = gaussian.HeldOut(fitted.detector.head)
    for rows in blocks(24, 20):
        others = np.setdiff1d(np.arange(24), rows)
        held_out.add(naive(features.values[others], features.values[rows], eps).astype(np.float32))
    want = held_out.calibration(20, 0.05)
    assert fitted.calibration.image.threshold == pytest.approx(want.image.threshold, rel=1e-3)
    assert fitted.calibration.pixel.threshold == pytest.approx(want.pixel.threshold, rel=5e-3)


def test_blocks_taken_out_of_the_sum_give_the_same(extractor, pictures):
    """More pictures than channels: the sum is updated instead of made again."""
    features = extractor.of(pictures, RecordedProgress())
    few = replace(features, values=np.ascontiguousarray(features.values[:, :10]))
    total = kernels.Accumulator(10, 8, 8)
    total.add(few.values)
    rows, eps = np.arange(5, 9), np.full(10, 0.1)
    before = kernels.mahalanobis_map(few.values, total.fit(eps))
    got = kernels.mahalanobis_map(few.values, gaussian._without(rows, total, eps, few))
    want = naive(np.delete(few.values, rows, axis=0), few.values, eps)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kernels.mahalanobis_map(few.values, total.fit(eps)), before, rtol=1e-5)


def test_distance_variance_is_equation_10(extractor, pictures):
    features = extractor.of(pictures, RecordedProgress())
    fitted = gaussian.fit(extractor, gaussian.Split(pictures, pictures.subset([])), RECIPE, RecordedProgress())
    d = naive(features.values, features.values, fitted.detector.gaussian.eps)
    want = ((d - d.mean(0)) ** 2).mean(0).mean()
    assert fitted.distance_variance == pytest.approx(want, rel=1e-3)


def test_many_pictures_are_split_for_a_guarantee(extractor, pictures):
    n = 1010
    many = pictures.subset(np.arange(n) % 24)
    split = gaussian.split(many)
    assert len(split.training) + len(split.held_out) == n
    assert len(split.held_out) == pytest.approx(n / 5, abs=2)
    assert gaussian.split(pictures).held_out.rows.size == 0
    some = gaussian.Split(pictures.subset(range(12)), pictures.subset(range(12, 24)))
    fitted = gaussian.fit(extractor, some, replace(RECIPE, target_fpr=0.1), RecordedProgress())
    assert fitted.calibration.image_estimate.how == "split-conformal"
    assert fitted.calibration.image_estimate.guarantee
    scores = [fitted.detector.score(some.held_out.take([i]))[0][0] for i in range(12)]
    assert fitted.calibration.image.threshold == pytest.approx(sorted(scores)[-1], rel=1e-3)


def test_held_out_blocks_are_whole_and_spread(pictures):
    many = resized.Resized(pictures.pixels, np.arange(1000))
    held = gaussian.split(many).held_out.rows
    runs = np.split(held, np.flatnonzero(np.diff(held) > 1) + 1)
    assert [len(run) for run in runs] == [50] * 4
    assert [run[0] for run in runs] == [100, 350, 600, 850]


def test_what_cannot_fit_in_memory_is_refused():
    assert "make a Gaussian of 0.05 GB" in gaussian.check_memory(176, (28, 28), 320)
    with pytest.raises(UsageError, match=r"100000 channels at 56 x 56 .* are free: add --channels \d+"):
        gaussian.check_memory(100_000, (56, 56), 320)


# The network file


def test_the_network_file_tells_nothing_of_the_machine(plain):
    model = onnx.load(plain.bundle / "network.onnx")
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"/site-packages/" not in (plain.bundle / "network.onnx").read_bytes()
    assert {opset.version for opset in model.opset_import if opset.domain == ""} == {18}


def test_the_manifest_round_trips(plain):
    manifest = bundle.read(plain.bundle).manifest
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest
