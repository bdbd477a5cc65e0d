"""DROC from pictures to bundle: both stages, stage two alone, all classifiers, whole pictures, the baselines."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine import bundle
from engine.api import load
from engine.errors import UsageError
from engine.plans import library
from engine.plans.build import BuildOptions, build
from engine.serving.select import open_local
from engine.sheet import Sheet
from trainers import registry
from trainers.base import TrainOptions
from trainers.dataset.good import Pictures, read_dataset
from trainers.droc import Droc, Settings, saved
from trainers.droc.classifiers import KINDS
from trainers.droc.fit import normalised
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.network.exported import Exported
from trainers.progress import RecordedProgress

SMALL = Settings(side_px=64, width="narrow", pretext="rotation", epochs=2, patches=8, head_layers=1)


@pytest.fixture(scope="module")
def pictures(parts):
    items = read_dataset(parts).test
    return np.stack([Pictures(items)[i] for i in range(len(items))])


@pytest.fixture(scope="module")
def options(parts, tmp_path_factory):
    return TrainOptions(data=parts, out=tmp_path_factory.mktemp("droc") / "out", threads=1, target_fpr=0.05)


@pytest.fixture(scope="module")
def whole(options):
    """Rotation prediction and GDE."""
    return Droc(SMALL).train(options, RecordedProgress())


@pytest.fixture(scope="module")
def refitted(whole, options, tmp_path_factory):
    """A classifier on the representation of `whole`, fitted once."""

    @functools.cache
    def fit(kind):
        out = tmp_path_factory.mktemp(kind) / "out"
        asked = replace(options, out=out, representation=whole.bundle, classifier=kind)
        return Droc(replace(SMALL, kernels=300)).train(asked, RecordedProgress())

    return fit


def judge(report):
    detector = open_local(bundle.read(report.bundle), "onnx", "fp32", threads=1)
    return Judge(detector.predict, Sheet(((64, 64),)), report.calibration["fp32"])


def test_notches_are_found_and_located(whole, parts):
    found = evaluate(judge(whole), read_dataset(parts), RecordedProgress())
    assert found.overall.pixel_auroc > 0.8
    assert found.overall.image_auroc > 0.9


def test_the_bundle_says_how_it_was_made(whole):
    manifest = bundle.read(whole.bundle).manifest
    assert (manifest.settings["pretext"], manifest.settings["width"], manifest.grid) == ("rotation", "narrow", (16, 16))
    assert manifest.report["fitted_on"] == 19 * 81
    assert manifest.report["n_held_out"] == 5
    curve = [float(value) for value in manifest.report["mmd_curve"].split()]
    assert len(curve) == 2
    assert curve[-1] == pytest.approx(manifest.report["mmd"], abs=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "rotation-softmax"])
def test_every_classifier_is_fitted_to_a_representation_and_served(kind, whole, refitted, pictures):
    report = refitted(kind)
    manifest = bundle.read(report.bundle).manifest
    assert manifest.settings["classifier"] == kind
    assert manifest.settings["epochs"] == 2
    assert manifest.report["representation"] == f"out@{whole.version}"
    with torch.no_grad():
        want = saved.load(report.bundle)(torch.from_numpy(pictures)).numpy()
    got = open_local(bundle.read(report.bundle), "onnx", "fp32", threads=1).predict(pictures)
    span = want.max() - want.min()
    head = judge(report)
    assert np.ptp(got.scores) > 0.01 * span
    np.testing.assert_allclose(got.maps.max(axis=(1, 2)), got.scores)
    exported = served_grid(report.bundle, pictures)
    np.testing.assert_allclose(exported, want, rtol=1e-4, atol=1e-6 + 1e-5 * span)
    assert head.calibration.image.width > 0


@pytest.mark.parametrize("kind", [*KINDS, "rotation-softmax"])
def test_every_classifier_becomes_a_tensorrt_engine(kind, refitted):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")
    assert build(library.find("tensorrt_rtx"), refitted(kind).bundle / "network.onnx", BuildOptions())


def served_grid(path, pictures):
    """The graph's output, before smoothing."""
    return Exported(path / "network.onnx", 1)(pictures)[0]


def test_the_served_oc_svm_is_scikit_learn_s_from_pixels_to_score(whole, options, tmp_path, pictures):
    """Features in float64, the fit and the decision by scikit-learn; the other side is the ONNX file."""
    one = Droc(replace(SMALL, side_px=32, network="padding-free")).train(
        replace(options, out=tmp_path / "one"), RecordedProgress()
    )
    asked = replace(options, out=tmp_path / "two", representation=one.bundle, classifier="oc-svm")
    report = Droc().train(asked, RecordedProgress())
    small = np.ascontiguousarray(pictures[:, ::2, ::2])
    _, model = saved.load_representation(one.bundle)
    tensors = load_file(report.bundle / "weights.safetensors")
    training = (tensors["classifier.kept"] + tensors["classifier.centre"]).double().numpy()
    with torch.no_grad():
        x = torch.from_numpy(small).permute(0, 3, 1, 2).double() / 255
        seen = normalised(model.double().trunk(x).numpy())
    similar = np.exp(-2 * tensors["classifier.gamma"].item() * (1 - seen @ training.T))
    want = 1 - similar @ tensors["classifier.shares"].double().numpy()
    got = served_grid(report.bundle, small)
    assert got.shape == (12, 1, 1)
    np.testing.assert_allclose(got[:, 0, 0], want, atol=1e-5, rtol=1e-4)


def test_stage_two_takes_the_representation_as_it_is(whole, refitted):
    report = refitted("oc-svm-linear")
    one, two = (load_file(path / "weights.safetensors") for path in (whole.bundle, report.bundle))
    same = [name for name in one if name.startswith("representation.")]
    assert same
    assert all(torch.equal(one[name], two[name]) for name in same)


@pytest.mark.parametrize(("name", "value"), [("epochs", 3), ("pretext", "distaug"), ("image_size", 64)])
def test_options_of_stage_one_are_refused_beside_a_representation(name, value, whole, options, tmp_path):
    asked = replace(options, out=tmp_path / "out", representation=whole.bundle, **{name: value})
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: is the representation's"):
        Droc().train(asked, RecordedProgress())


def test_a_representation_is_a_bundle_of_this_method(options, trained, tmp_path):
    asked = replace(options, out=tmp_path / "out", representation=trained("fyd").bundle)
    with pytest.raises(UsageError, match="expected a bundle of --method droc, got one of fyd"):
        Droc().train(asked, RecordedProgress())


@pytest.mark.parametrize(("pretext", "network"), [("random", None), ("imagenet", None), ("distaug", "padding-free")])
def test_whole_pictures_have_one_score(pretext, network, options, resnet_file, tmp_path, pictures):
    settings = Settings(side_px=32, width="narrow", pretext=pretext, network=network, epochs=1, backbone=resnet_file)
    report = Droc(settings).train(replace(options, out=tmp_path / "out"), RecordedProgress())
    assert bundle.read(report.bundle).manifest.grid == (1, 1)
    with load(report.bundle, backend="onnx", threads=1) as model:
        results = model.predict(list(pictures[:2]))
    assert all(0 < result.pred_score < 1 for result in results)
    assert ("loss" in report.measured) == (pretext == "distaug")


def test_an_interrupted_training_gives_the_same_bundle(options, tmp_path, interrupted):
    def run(folder, progress):
        return Droc(SMALL).train(replace(options, out=tmp_path / folder / "bundle"), progress)

    one = run("one", RecordedProgress())
    interrupted(lambda progress: run("two", progress), only="calibrate")
    assert [path.name for path in (tmp_path / "two").iterdir()] == [".bundle.representation.checkpoint"]
    progress = RecordedProgress()
    two = run("two", progress)
    assert any(line.startswith("going on after epoch 2 of 2") for line in progress.lines)
    for path in one.bundle.iterdir():
        assert (two.bundle / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["bundle"]


def test_it_is_registered():
    assert isinstance(registry.get("droc"), Droc)
