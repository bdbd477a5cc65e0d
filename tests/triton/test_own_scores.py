"""A network that gives distances and scores itself, without a Gaussian, is served with its own scores."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto, helper

from engine import bundle as bundles
from engine.contract import Executable
from engine.serving.select import open_local
from engine.triton.repository import Repository
from engine.triton.server import Server


def network(path):
    """(N, 64, 64, 3) uint8 -> grid (N, 8, 8): mean brightness of each cell; score (N,): its mean over the picture."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMean", ["pooled", "channel"], ["grid"], keepdims=0),
        helper.make_node("ReduceMean", ["grid", "places"], ["score"], keepdims=0),
    ]
    constants = {"channel": np.array([1]), "places": np.array([1, 2])}
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 64, 64, 3])],
        [
            helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["N", 8, 8]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def bundle(tiny, tmp_path):
    source = bundles.read(tiny.path).manifest
    with bundles.writing(tmp_path / "bright") as folder:
        network(folder / "network.onnx")
        executable = Executable(
            network=bundles.describe(folder / "network.onnx", folder),
            calibration=source.executables["fp32"].calibration,
        )
        values = {name: getattr(source, name) for name in source.__struct_fields__}
        bundles.write_manifest(folder, type(source)(**values | {"method": "igd", "executables": {"fp32": executable}}))
    return bundles.read(tmp_path / "bright")


def test_its_scores_are_not_the_map_s_maximum(bundle, export, ask, images, tmp_path):
    export(bundle, tmp_path / "repository")
    server = Server(Repository(tmp_path / "repository"))
    running = server.up()
    try:
        with grpc.InferenceServerClient(running.grpc) as client:
            found = ask(client, "detector", images[:3]).as_numpy("raw_score")
            member = ask(client, "igd", images[:3])
    finally:
        server.down()
    expected = images[:3].mean(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(member.as_numpy("raw_score"), found)
    raw = open_local(bundle, "onnx", "fp32", threads=1).predict(images[:3])
    np.testing.assert_allclose(member.as_numpy("raw_map"), raw.maps, rtol=1e-5)
    assert (raw.maps.max(axis=(1, 2)) > 1.02 * expected).all()
