"""What every method's bundle keeps to, whatever the paper: parametrised over the registry."""

import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest

from engine import bundle
from engine.api import load
from engine.errors import BundleError, UsageError
from engine.serving.select import local_backends, open_local
from trainers import registry
from trainers.base import OF_SOME
from trainers.dataset.good import Pictures, read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.progress import RecordedProgress

pytestmark = pytest.mark.parametrize("method", registry.names())


@pytest.fixture
def report(method, trained):
    return trained(method)


@pytest.fixture(scope="module")
def pictures(parts):
    items = read_dataset(parts).test
    return np.stack([Pictures(items)[i] for i in range(len(items))])


def opened(report, backend="onnx", precision="fp32"):
    return open_local(bundle.read(report.bundle), backend, precision, threads=1)


def test_the_document_is_what_scripts_rely_on(method, report):
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert {"bundle", "method", "version", "train_s", "calibration"} <= set(document)
    assert document["method"] == method
    assert document["train_s"] > 0
    assert document["calibration"]["fp32"]["image"]["width"] > 0


def test_the_bundle_verifies_and_says_how_it_was_made(method, report):
    manifest = bundle.read(report.bundle).manifest
    assert (manifest.method, manifest.version) == (method, report.version)
    assert manifest.training.n_good == 24
    assert manifest.settings["seed"] == 0
    assert "epochs" in manifest.settings
    assert {"torch", "onnxruntime", "anomaly-engine"} <= set(manifest.versions)
    named = {"bundle.json"} | ({manifest.weights.path} if manifest.weights else set())
    for executable in manifest.executables.values():
        files = (executable.network, executable.gaussian, executable.held_out, executable.reference, *executable.data)
        named |= {file.path for file in files if file is not None}
        assert 0 < executable.calibration.image_estimate.n_images <= 24
    assert {path.name for path in report.bundle.iterdir()} == named
    assert list(report.bundle.parent.iterdir()) == [report.bundle]  # no scratch, no checkpoint


def test_scores_do_not_depend_on_the_batch(report, pictures):
    predictor = opened(report)
    whole = predictor.predict(pictures)
    assert whole.scores.shape == (12,)
    assert whole.maps.shape == (12, *pictures.shape[1:3])
    one_by_one = [predictor.predict(pictures[i : i + 1]) for i in range(12)]
    np.testing.assert_allclose([raw.scores[0] for raw in one_by_one], whole.scores, rtol=1e-3)
    np.testing.assert_allclose(predictor.predict(pictures[::-1]).scores[::-1], whole.scores, rtol=1e-3)


def test_backends_agree(report, pictures):
    reference = opened(report).predict(pictures)
    for backend in local_backends():
        raw = opened(report, backend).predict(pictures)
        np.testing.assert_allclose(raw.scores, reference.scores, rtol=2e-3)
        np.testing.assert_allclose(raw.maps, reference.maps, rtol=1e-2, atol=1e-2 * reference.maps.max())


def test_it_is_evaluated_as_served(report, parts):
    loaded = bundle.read(report.bundle)
    judge = Judge(opened(report).predict, loaded.sheet, loaded.calibration("fp32"))
    found = evaluate(judge, read_dataset(parts), RecordedProgress())
    assert (found.n_good, found.n_defect) == (6, 6)
    assert found.overall.pixel_auroc is not None
    assert 0 <= found.overall.image_auroc <= 1


def test_it_judges_pictures_of_any_size(report, pictures):
    large = cv2.resize(pictures[0], (200, 150))
    with load(report.bundle, backend="onnx", threads=1) as model:
        results = model.predict([pictures[0], large])
    assert [result.anomaly_map.shape for result in results] == [(64, 64), (150, 200)]
    assert all(0 < result.pred_score < 1 for result in results)


def test_it_serves_a_line(report, line, make_watch, make_config, run_burst, pictures):
    """From frames in a stream to results in another, on a real server."""
    loaded = bundle.read(report.bundle)
    pushed = [line.push(data=cv2.imencode(".png", picture[..., ::-1])[1].tobytes()) for picture in pictures[:4]]
    config = make_config(line)
    predictor = opened(report)
    run_burst(config, predictor, sheet=loaded.sheet, model=loaded.manifest.model)
    results = {result.frame: result for result in line.results()}
    assert sorted(results) == sorted(pushed)
    want = predictor.predict(pictures[:4]).scores
    np.testing.assert_allclose([results[frame].raw_score for frame in pushed], want, rtol=1e-3)


def test_the_network_is_one_that_other_runtimes_take(report):
    """Nothing outside ONNX's own operators, and no size that is not known but the batch's."""
    manifest = bundle.read(report.bundle).manifest
    model = onnx.load(report.bundle / manifest.executables["fp32"].network.path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    for value in [*model.graph.input, *model.graph.output]:
        batch, *others = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert all(side.dim_value > 0 for side in others)


def test_options_of_other_methods_are_refused(method, tiny_options, tmp_path):
    trainer = registry.get(method)
    values = {
        "augmentation": "none",
        "backbone": "x",
        "channels": 1,
        "download_weights": True,
        "objective": "1",
        "width": "full",
        "encoder": "scratch",
        "pretext": "rotation",
        "network": "resnet18",
        "patch_size": 32,
        "classifier": "gde",
        "representation": tmp_path / "other",
    }
    assert set(values) == OF_SOME >= trainer.takes
    for name in OF_SOME - trainer.takes:
        flag = "--" + name.replace("_", "-")
        options = replace(tiny_options(method, tmp_path / "out"), **{name: values[name]})
        with pytest.raises(UsageError, match=f"^{flag}: not an option of --method {method}"):
            trainer.train(options, RecordedProgress())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_bundle_is_not_overwritten(method, tiny_options, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        registry.get(method).train(tiny_options(method, tmp_path), RecordedProgress())


def test_the_same_seed_gives_the_same_bytes(method, report, tiny_options, tmp_path):
    again = registry.get(method).train(tiny_options(method, tmp_path / report.bundle.name), RecordedProgress())
    for path in report.bundle.iterdir():
        assert (again.bundle / path.name).read_bytes() == path.read_bytes(), path.name
