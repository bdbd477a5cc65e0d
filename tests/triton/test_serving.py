"""What a real tritonserver answers: the engine's own numbers, and a clear refusal of everything else."""

from __future__ import annotations

import json
import queue
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from engine.decide import decide
from engine.serving.select import open_local
from engine.triton import models
from engine.triton.models import Names


@pytest.fixture(scope="session")
def expected(bundle, images):
    return open_local(bundle, "onnx", "fp32", threads=1).predict(images)


def fetch(address, path, body=None):
    request = urllib.request.Request(f"http://{address}/{path}", data=body)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_member_gives_the_in_process_scores_and_maps(client, ask, images, expected, n):
    found = ask(client, "fyd", images[:n])
    np.testing.assert_allclose(found.as_numpy("raw_score"), expected.scores[:n, np.newaxis], rtol=1e-3)
    np.testing.assert_allclose(found.as_numpy("raw_map"), expected.maps[:n], rtol=1e-3)


def test_detector_judges_as_the_engine_does(client, ask, bundle, images, expected):
    found = ask(client, "detector", images)
    calibration = bundle.executable("fp32").calibration
    decisions = [
        decide(score, raw_map, calibration, (64, 64))
        for score, raw_map in zip(expected.scores, expected.maps, strict=True)
    ]
    np.testing.assert_allclose(found.as_numpy("raw_score")[:, 0], expected.scores, rtol=1e-3)
    np.testing.assert_allclose(found.as_numpy("pred_score")[:, 0], [d.pred_score for d in decisions], rtol=1e-3)
    assert found.as_numpy("pred_label")[:, 0].tolist() == [d.pred_label for d in decisions]
    np.testing.assert_allclose(found.as_numpy("anomaly_map") * 65535, [d.anomaly_map for d in decisions], atol=1)
    np.testing.assert_array_equal(found.as_numpy("pred_mask"), [d.pred_mask for d in decisions])
    assert {name: found.as_numpy(name).dtype.name for name in ("pred_label", "pred_mask", "pred_score")} == {
        "pred_label": "bool",
        "pred_mask": "uint8",
        "pred_score": "float32",
    }


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("detector", ["raw_score"]),  # alone it needs no decision, which Triton's scheduler does not bear by itself
        ("detector", ["pred_score", "raw_score"]),
        ("detector", ["pred_mask"]),
        ("fyd", ["raw_score"]),
        ("fyd", ["raw_map"]),
    ],
)
def test_a_client_may_ask_for_some_outputs(client, images, expected, model, outputs):
    tensor = grpc.InferInput("IMAGE", [1, 64, 64, 3], "UINT8")
    tensor.set_data_from_numpy(images[:1])
    found = client.infer(model, [tensor], outputs=[grpc.InferRequestedOutput(name) for name in outputs])
    assert {output.name for output in found.get_response().outputs} == set(outputs)
    if "raw_score" in outputs:
        np.testing.assert_allclose(found.as_numpy("raw_score"), [[expected.scores[0]]], rtol=1e-3)


def test_good_pictures_are_good_and_a_spot_is_where_it_is(client, ask, pictures):
    image = pictures[:2].copy()
    image[1, 16:32, 40:56] = 255
    found = ask(client, "detector", image)
    assert found.as_numpy("pred_label")[:, 0].tolist() == [False, True]
    assert not found.as_numpy("pred_mask")[0].any()
    rows, columns = np.nonzero(found.as_numpy("pred_mask")[1])
    assert 14 <= rows.mean() <= 34
    assert 38 <= columns.mean() <= 58


def test_requests_that_wait_are_run_together_and_answered_apart(client, bundle, repository, images, expected):
    name = Names.of(repository.versions()[1]).member
    before = client.get_inference_statistics(name).model_stats[0]
    answers = queue.Queue()
    for i in range(48):
        tensor = grpc.InferInput("IMAGE", [1, 64, 64, 3], "UINT8")
        tensor.set_data_from_numpy(images[i % 8 : i % 8 + 1])
        client.async_infer("fyd", [tensor], lambda result, error: answers.put((result, error)), request_id=str(i))
    for _ in range(48):
        result, error = answers.get(timeout=30)
        assert error is None
        row = int(result.get_response().id) % 8
        np.testing.assert_allclose(result.as_numpy("raw_score")[0, 0], expected.scores[row], rtol=1e-3)
    after = client.get_inference_statistics(name).model_stats[0]
    assert after.inference_count - before.inference_count == 48
    assert after.execution_count - before.execution_count < 40


@pytest.mark.parametrize("model", ["detector", "fyd"])
@pytest.mark.parametrize(
    ("images", "name", "datatype", "said"),
    [
        (np.zeros((1, 32, 64, 3), np.uint8), "IMAGE", "UINT8", r"unexpected shape .*\[-1,64,64,3\]"),
        (np.zeros((1, 64, 64, 1), np.uint8), "IMAGE", "UINT8", "unexpected shape"),
        (np.zeros((8, 64, 3), np.uint8), "IMAGE", "UINT8", "unexpected shape"),
        (np.zeros((1, 64, 64, 3), np.float32), "IMAGE", "FP32", "expects 'UINT8'"),
        (np.zeros((1, 64, 64, 3), np.uint8), "image", "UINT8", "'image'"),
        (np.zeros((models.MAX_BATCH + 1, 64, 64, 3), np.uint8), "IMAGE", "UINT8", "must be <= 32"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_next_request_is_served(client, ask, images, name, datatype, said, model):
    with pytest.raises(InferenceServerException, match=said):
        ask(client, model, images, name, datatype)
    assert ask(client, model, np.zeros((1, 64, 64, 3), np.uint8)).as_numpy("raw_score").shape == (1, 1)


def test_unknown_names_are_refused(client, ask, images):
    with pytest.raises(InferenceServerException, match="unknown model: 'dectector'"):
        ask(client, "dectector", images)
    tensor = grpc.InferInput("IMAGE", [1, 64, 64, 3], "UINT8")
    tensor.set_data_from_numpy(images[:1])
    with pytest.raises(InferenceServerException, match="unexpected inference output 'score'"):
        client.infer("detector", [tensor], outputs=[grpc.InferRequestedOutput("score")])


def test_the_largest_batch_is_served(client, ask):
    images = np.zeros((models.MAX_BATCH, 64, 64, 3), np.uint8)
    found = ask(client, "detector", images)
    assert found.as_numpy("anomaly_map").shape == (models.MAX_BATCH, 64, 64)


def test_health_metadata_and_metrics_are_there(running, client, ask, images):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("detector")
    metadata = json.loads(fetch(running.http, "v2/models/detector"))
    assert metadata["versions"] == ["1"]
    assert {tensor["name"]: tensor["shape"] for tensor in metadata["outputs"]} == {
        "pred_score": [-1, 1],
        "pred_label": [-1, 1],
        "raw_score": [-1, 1],
        "anomaly_map": [-1, 64, 64],
        "pred_mask": [-1, 64, 64],
    }
    config = client.get_model_config("detector", as_json=True)["config"]
    assert config["parameters"]["bundle"]["string_value"] == "tiny@1"
    ask(client, "detector", images[:1])
    metrics = urllib.request.urlopen(running.metrics, timeout=10).read().decode()
    assert 'nv_inference_request_success{model="detector",version="1"}' in metrics


def test_http_is_answered_like_grpc(running, images, expected):
    body = {
        "inputs": [
            {"name": "IMAGE", "shape": [1, 64, 64, 3], "datatype": "UINT8", "data": images[:1].ravel().tolist()}
        ],
        "outputs": [{"name": "raw_score"}],
    }
    answer = json.loads(fetch(running.http, "v2/models/detector/infer", json.dumps(body).encode()))
    assert answer["outputs"][0]["data"] == pytest.approx([expected.scores[0]], rel=1e-3)


def test_models_are_unloaded_and_loaded_by_name(running, client, ask, images):
    running.control.unload("fyd")
    assert not running.control.ready("fyd")
    with pytest.raises(InferenceServerException, match="fyd"):
        ask(client, "fyd", images[:1])
    assert running.control.ready("detector")
    running.control.load("fyd")
    assert running.control.index()["fyd"] == "READY"
    ask(client, "fyd", images[:1])


def test_the_log_has_no_complaints_of_python(running, client, ask, images):
    ask(client, "detector", images)
    with open(running.log, errors="replace") as log:
        assert "Traceback" not in log.read()
