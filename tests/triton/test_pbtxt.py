"""The configurations are what the contract says, and Triton's own parser reads from them what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine import contract
from engine.triton import example, models
from engine.triton.installation import WHEEL
from engine.triton.pbtxt import Tensor

ROOT = Path(__file__).parents[2]


def parsed(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def shapes(tensors):
    names = {"TYPE_UINT8": "u8", "TYPE_FP32": "f32", "TYPE_BOOL": "bool"}
    kind = model_config_pb2.DataType.Name
    return {tensor.name: (names[kind(tensor.data_type)], *tensor.dims) for tensor in tensors}


@pytest.mark.parametrize("folder", ["member", "network", "map", "decision", "method", "detector"])
def test_the_files_of_the_source_are_what_the_contract_gives(folder):
    written = (ROOT / "model_repository" / folder / "config.pbtxt").read_text()
    assert written == example.configurations()[folder], "write them: python -m engine.triton.example"


def test_detector_is_the_contract_s():
    config = parsed(models.public_models(example.example(), 3)[-1].text())
    assert config.name == contract.DETECTOR_MODEL == "detector"
    assert config.platform == "ensemble"
    assert shapes(config.input) == {"IMAGE": ("u8", 224, 224, 3)}
    assert shapes(config.output) == {
        "pred_score": ("f32", 1),
        "pred_label": ("bool", 1),
        "raw_score": ("f32", 1),
        "anomaly_map": ("f32", 224, 224),
        "pred_mask": ("u8", 224, 224),
    }
    assert list(config.version_policy.specific.versions) == [3]
    assert config.parameters["bundle"].string_value == "example@1"
    assert [step.model_version for step in config.ensemble_scheduling.step] == [1, 1]


def test_a_member_is_the_contract_s():
    config = parsed(models.public_models(example.example(), 1)[0].text())
    assert shapes(config.input) == {"IMAGE": ("u8", 224, 224, 3)}
    assert shapes(config.output) == {"raw_score": ("f32", 1), "raw_map": ("f32", 224, 224)}


def test_what_runs_has_batching_instances_and_a_warm_up():
    member, decision = (parsed(config.text()) for config in models.fixed_models(example.example()))
    for config in (member, decision):
        assert config.backend == "python"
        assert config.HasField("dynamic_batching")
        assert [group.kind for group in config.instance_group] == [2]  # KIND_CPU
        assert {name for warm in config.model_warmup for name in warm.inputs} == {
            tensor.name for tensor in config.input
        }
        assert config.max_batch_size == models.MAX_BATCH
    assert member.dynamic_batching.max_queue_delay_microseconds > 0


def test_on_a_gpu_the_network_is_a_plan_and_features_stay_there():
    gpu = [parsed(config.text()) for config in models.fixed_models(example.example("gpu"))]
    network, head, member, decision = gpu
    assert network.platform == "tensorrt_plan"
    assert [group.kind for group in network.instance_group] == [1]  # KIND_GPU
    assert head.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
    assert [group.kind for group in decision.instance_group] == [2]
    assert [step.model_name for step in member.ensemble_scheduling.step] == [network.name, head.name]
    assert not member.model_warmup


def test_one_number_a_picture_has_a_shape_that_triton_takes():
    text = models.fixed_models(_with_score())[0].text()
    score = parsed(text).output[1]
    assert (list(score.dims), list(score.reshape.shape), score.HasField("reshape")) == ([1], [], True)


def _with_score():
    served = example.example("gpu")
    outputs = (Tensor("grid", "TYPE_FP32", (28, 28)), Tensor("score", "TYPE_FP32", ()))
    return type(served)(served.manifest, served.precision, served.flavour, served.name, outputs)


def test_the_server_that_the_error_names_is_the_one_that_is_pinned():
    assert WHEEL in (ROOT / "model_repository" / "server.txt").read_text()
    assert WHEEL in (ROOT / "constraints.txt").read_text().splitlines()
