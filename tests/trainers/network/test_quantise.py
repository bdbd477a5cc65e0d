"""int8 networks: nearly the same features, from integer arithmetic, the same everywhere."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trainers.network.features import Extractor
from trainers.network.quantise import TENSORRT, quantise

SIDE = 16


def conv(name, source, out, channels_in, channels_out, random):
    weight = random.normal(size=(channels_out, channels_in, 3, 3)).astype(np.float32) / 5
    bias = random.normal(size=channels_out).astype(np.float32)
    node = helper.make_node("Conv", [source, name + ".w", name + ".b"], [out], name=name, pads=[1, 1, 1, 1])
    return node, [numpy_helper.from_array(weight, name + ".w"), numpy_helper.from_array(bias, name + ".b")]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Five convolutions with ReLU6 between them."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["chw", "scale"], ["x0"]),
    ]
    weights = [numpy_helper.from_array(np.float32(128), "scale")]
    weights += [numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "low"), (6, "high"))]
    for i, (c, d) in enumerate([(3, 8), (8, 8), (8, 8), (8, 8), (8, 4)]):
        node, more = conv(f"conv{i}", f"x{i}", f"y{i}" if i < 4 else "features", c, d, random)
        nodes.append(node)
        weights += more
        if i < 4:
            nodes.append(helper.make_node("Clip", [f"y{i}", "low", "high"], [f"x{i + 1}"], name=f"clip{i}"))
    graph = helper.make_graph(
        nodes,
        "five",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4, SIDE, SIDE])],
        weights,
    )
    path = tmp_path_factory.mktemp("onnx") / "five.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def int8(network, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "int8.onnx"
    quantise(network, path, iter([pictures[:8], pictures[8:16]]))
    return path


def test_features_hardly_change(network, int8, pictures):
    a, b = (Extractor(path, 1)(pictures[16:]).values for path in (network, int8))
    assert np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b) > 0.995
    assert not np.array_equal(a, b)


def test_late_convolutions_are_integers_and_early_ones_are_not(int8):
    graph = onnx.load(int8).graph
    made_by = {out: node.op_type for node in graph.node for out in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    sources = [made_by.get(node.input[1], "float") for node in convolutions]
    assert sources == ["float"] * 3 + ["DequantizeLinear"] * 2


def test_nothing_is_quantised_before_the_first_integer_convolution(int8):
    """ONNX Runtime moves a quantisation up through pooling, which is slow on bytes: there must be none to move."""
    quantised = [node.input[0] for node in onnx.load(int8).graph.node if node.op_type == "QuantizeLinear"]
    assert quantised[0] == "x3"


def test_an_activation_sets_its_convolutions_range(int8):
    """Otherwise eight bits are spent on values that ReLU6 cuts off; its node goes, the range does the cutting."""
    graph = onnx.load(int8).graph
    assert sum(node.op_type == "Clip" for node in graph.node) == 3  # behind the float convolutions only


def test_weights_are_per_channel_and_keep_seven_bits(int8):
    graph = onnx.load(int8).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    weights = {name: t for name, t in tensors.items() if t.dtype == np.int8 and t.ndim == 4}
    assert len(weights) == 2
    for name, values in weights.items():
        assert np.abs(values.astype(int)).max() <= 64
        scale = tensors[name.replace("_quantized", "_scale")]
        assert scale.shape == (len(values),)


def test_saturating_processors_agree_with_others(int8, pictures):
    """The optimised graph (integer sums) equals the plain one (float sums of the same integers) to a step."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(str(int8), options).run(None, {"image": pictures[16:]})[0]
    fast = Extractor(int8, 1)(pictures[16:]).values
    step = np.ptp(plain) / 255
    assert np.abs(plain - fast).max() <= 2.01 * step


def test_the_same_pictures_give_the_same_file(network, pictures, int8, tmp_path):
    quantise(network, tmp_path / "again.onnx", iter([pictures[:8], pictures[8:16]]))
    assert (tmp_path / "again.onnx").read_bytes() == int8.read_bytes()


@pytest.fixture(scope="module")
def symmetric(network, pictures, tmp_path_factory):
    """As TensorRT takes it."""
    path = tmp_path_factory.mktemp("onnx") / "symmetric.onnx"
    quantise(network, path, iter([pictures[:8], pictures[8:16]]), TENSORRT)
    return path


def test_for_tensorrt_there_are_no_zero_points_and_biases_stay(symmetric):
    graph = onnx.load(symmetric).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zero_points = [tensors[node.input[2]] for node in pairs]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zero_points)
    late = [node for node in graph.node if node.op_type == "Conv"][3:]
    assert all(tensors[node.input[2]].dtype == np.float32 for node in late)


def test_for_tensorrt_only_inputs_and_weights_are_quantised(symmetric):
    graph = onnx.load(symmetric).graph
    readers = {name: node.op_type for node in graph.node for name in node.input}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [readers.get(node.output[0]) for node in convolutions] == ["Clip"] * 4 + [None]
    weights = [numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("_quantized")]
    assert {np.abs(values.astype(int)).max() for values in weights} == {127}  # all eight bits


def test_for_tensorrt_features_hardly_change(network, symmetric, pictures):
    a, b = (Extractor(path, 1)(pictures[16:]).values for path in (network, symmetric))
    assert np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b) > 0.999
    assert not np.array_equal(a, b)


def test_the_root_logger_stays_as_it_is(network, tmp_path):
    """ONNX Runtime logs there of weights far smaller than their bias, and then every line appears twice."""
    model = onnx.load(network)
    for tensor in model.graph.initializer:
        if tensor.name == "conv4.w":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e-12), tensor.name))
    onnx.save(model, tmp_path / "small.onnx")
    code = (
        "import logging, sys; import numpy as np; from pathlib import Path;"
        "from trainers.network.quantise import quantise;"
        "quantise(Path(sys.argv[1]), Path(sys.argv[2]), iter([np.zeros((2, 16, 16, 3), np.uint8)]));"
        "print(logging.getLogger().handlers)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "small.onnx"), str(tmp_path / "out.onnx")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
