"""Every method in every precision for TensorRT: a plan by the real builder, thresholds of its own."""

from __future__ import annotations

import functools
import shutil

import cv2
import msgspec
import numpy as np
import onnx
import pytest

import kernels
from engine import bundle as bundles
from engine.contract import FEATURES_NAME, GRID_NAME
from engine.errors import BundleError, DataError
from engine.export import registry as targets
from engine.export.base import ExportOptions
from engine.serving.select import open_local
from trainers import registry
from trainers.calibration.holdout import held_out_rows
from trainers.calibration.recalibrate import Order, recalibrate
from trainers.calibration.thresholds import level_of
from trainers.dataset.good import Pictures, read_dataset
from trainers.network.exported import Exported
from trainers.progress import RecordedProgress

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")

PRECISIONS = ("fp32", "fp16", "int8")
every_method = pytest.mark.parametrize("method", registry.names())
every_change = pytest.mark.parametrize("precision", ["fp16", "int8"])


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The bundle that a method's becomes in a precision, made once."""

    def again(source, precision, data, folder):
        return recalibrate(Order(source, precision, data, threads=1), folder, RecordedProgress())

    @functools.cache
    def export(method, precision):
        out = tmp_path_factory.mktemp(f"{method}-{precision}") / "out"
        source = bundles.read(trained(method).bundle)
        targets.get("tensorrt").export(ExportOptions(source, out, again, precision, batch="1,2,4"))
        return bundles.read(out)

    return export


@pytest.fixture(scope="module")
def pictures(parts):
    items = read_dataset(parts).test
    return np.stack([Pictures(items)[i] for i in range(len(items))])


def scores(bundle, precision, pictures):
    return open_local(bundle, "onnx", precision, threads=1).predict(pictures).scores


@every_method
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_method_becomes_a_plan(method, precision, exported):
    bundle = exported(method, precision)
    network = bundle.executable(precision).network.path
    assert list(bundle.manifest.executables) == [precision]
    assert (bundle.path / network).with_suffix(".plan").stat().st_size > 10_000
    assert onnx.load(bundle.path / network).graph.input[0].name == "image"


@every_method
@every_change
def test_scores_go_with_those_of_float32(method, precision, exported, trained, pictures):
    """A shift is the thresholds' affair; what tells pictures apart has to stay."""
    before = scores(bundles.read(trained(method).bundle), "fp32", pictures)
    after = scores(exported(method, precision), precision, pictures)
    assert not np.array_equal(before, after)
    assert np.corrcoef(before, after)[0, 1] > 0.99


@every_method
@every_change
def test_thresholds_are_of_the_pictures_that_training_held_out(method, precision, exported, trained):
    old = bundles.read(trained(method).bundle).executable("fp32").calibration
    new = exported(method, precision).executable(precision).calibration
    assert new.image_estimate == old.image_estimate
    assert new.pixel_estimate == old.pixel_estimate
    assert new.image.threshold != old.image.threshold


@every_change
def test_the_threshold_of_many_fits_is_near_the_old_one(precision, exported, trained):
    """FYD's, from as many Gaussians as there are blocks; the others' is held exactly by the next test."""
    old = bundles.read(trained("fyd").bundle).executable("fp32").calibration.image.threshold
    assert exported("fyd", precision).executable(precision).calibration.image.threshold == pytest.approx(old, rel=0.1)


@pytest.mark.parametrize("method", [name for name in registry.names() if name != "fyd"])
@every_change
def test_what_learns_is_calibrated_on_what_it_has_not_seen(method, precision, exported, parts):
    """The bundle's own scores of the fifth that is held out; FYD's Gaussian is fitted again without each block."""
    bundle = exported(method, precision)
    items = read_dataset(parts).train
    unseen = [Pictures(items)[int(row)] for row in held_out_rows(len(items))]
    raw = scores(bundle, precision, np.stack(unseen))
    level, _ = level_of(raw, target_fpr=0.05, folds=1)
    assert bundle.executable(precision).calibration.image.threshold == pytest.approx(level, rel=1e-4)


@every_change
def test_a_gaussian_is_fitted_on_the_new_features(precision, exported, trained, parts):
    """Its mean is that of the new network's features of the training pictures, which is not the old one's."""
    source, bundle = bundles.read(trained("fyd").bundle), exported("fyd", precision)
    items = read_dataset(parts).train
    pictures = np.stack([Pictures(items)[i] for i in range(len(items))])
    executable = bundle.executable(precision)
    features = Exported(bundle.file(executable.network), 1)(pictures)[0]  # (N, C, h, w)
    mean = kernels.Gaussian.load(bundle.file(executable.gaussian)).mean
    old = kernels.Gaussian.load(source.file(source.executable("fp32").gaussian)).mean
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(axis=0).transpose(1, 2, 0), rtol=1e-4, atol=1e-4)
    assert np.abs(mean - old).max() > 1e-3


@every_method
def test_grids_are_distances(method, exported, pictures):
    """The device takes maxima of numbers that are not negative."""
    bundle = exported(method, "fp32")
    network = onnx.load(bundle.file(bundle.executable("fp32").network))
    names = [output.name for output in network.graph.output]
    outputs = dict(zip(names, Exported(bundle.file(bundle.executable("fp32").network), 1)(pictures), strict=True))
    assert GRID_NAME in outputs or FEATURES_NAME in outputs
    assert outputs.get(GRID_NAME, np.zeros(1)).min() >= 0


@every_change
def test_a_second_threshold_keeps_its_place_on_the_scale(precision, trained, tmp_path, parts):
    source = bundles.read(trained("fyd").bundle)
    executable = source.executable("fp32")
    review = executable.calibration.image.raw(0.3)
    calibration = msgspec.structs.replace(executable.calibration, review=review)
    executables = {"fp32": msgspec.structs.replace(executable, calibration=calibration)}
    with_review = bundles.Bundle(source.path, msgspec.structs.replace(source.manifest, executables=executables))
    made = recalibrate(Order(with_review, precision, parts, 1), tmp_path, RecordedProgress())
    new = made.executables[precision].calibration
    assert float(new.image.calibrated(np.asarray(new.review))) == pytest.approx(0.3)


def test_other_pictures_are_refused(trained, parts, tmp_path):
    source = bundles.read(trained("fyd").bundle)
    shutil.copytree(parts, tmp_path / "parts")
    cv2.imwrite(str(tmp_path / "parts/train/good/000.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"expected the 24 pictures that .* was trained on, got 24 that differ"):
        recalibrate(Order(source, "fp16", tmp_path / "parts", 1), tmp_path, RecordedProgress())
    with pytest.raises(DataError, match="give --data FOLDER"):
        recalibrate(Order(source, "fp16", tmp_path / "gone", 1), tmp_path, RecordedProgress())


def test_a_bundle_that_does_not_say_how_it_was_fitted_is_refused(trained, parts, tmp_path):
    source = bundles.read(trained("fyd").bundle)
    without = bundles.Bundle(source.path, msgspec.structs.replace(source.manifest, settings={}))
    with pytest.raises(BundleError, match="its settings lack `regularisation`"):
        recalibrate(Order(without, "fp16", parts, 1), tmp_path, RecordedProgress())
