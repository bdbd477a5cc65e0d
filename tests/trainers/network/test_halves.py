"""float16 where layers are learnt, float32 around them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trainers.network.halves import halve
from trainers.network.layers import learnt

SIDE = 8


def save(path, nodes, weights, outputs):
    """A network of (N, 8, 8, 3) pictures."""
    first = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        [*first, *nodes],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def run(path, images):
    return ort.InferenceSession(path).run(None, {"image": images})


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def detector(tmp_path):
    """Two convolutions with ReLU between them, then what a score is made of: a square and a moving average."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.normal(size=(4, 3, 1, 1)).astype(np.float32) / 100,
        "b1": rng.normal(size=4).astype(np.float32),
        "w2": rng.normal(size=(2, 4, 1, 1)).astype(np.float32),
        "window": np.full((2, 1, 3, 3), 1 / 9, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("Mul", ["c", "c"], ["d"]),
        helper.make_node("Conv", ["d", "window"], ["grid"], group=2, pads=[1, 1, 1, 1]),
    ]
    save(tmp_path / "net.onnx", nodes, weights, {"grid": (2, SIDE, SIDE)})
    return tmp_path / "net.onnx", weights


def doubling(tmp_path, scales):
    """Two convolutions with a doubling of the sides between them."""
    rng = np.random.default_rng(2)
    weights = {
        "w1": rng.normal(size=(4, 3, 1, 1)).astype(np.float32) / 100,
        "w2": rng.normal(size=(2, 4, 1, 1)).astype(np.float32),
        "scales": np.asarray(scales, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"]),
        helper.make_node(
            "Resize",
            ["a", "", "scales"],
            ["b"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Conv", ["b", "w2"], ["grid"]),
    ]
    save(tmp_path / "doubling.onnx", nodes, weights, {"grid": (2, 2 * SIDE, 2 * SIDE)})
    return tmp_path / "doubling.onnx"


def reference(images, weights):
    """The same with NumPy: float16 after every operator of the learnt part, exact elsewhere."""

    def half(x):
        return x.astype(np.float16).astype(np.float64)

    x = images.transpose(0, 3, 1, 2).astype(np.float64)
    a = half(np.einsum("nchw,dc->ndhw", x, half(weights["w1"][:, :, 0, 0])) + half(weights["b1"])[:, None, None])
    c = half(np.einsum("nchw,dc->ndhw", np.maximum(a, 0), half(weights["w2"][:, :, 0, 0])))
    d = np.pad(c**2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(d[:, :, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)) / 9


def test_learnt_layers_are_rounded_and_nothing_else(detector, images, tmp_path):
    network, weights = detector
    halve(network, tmp_path / "half.onnx")
    (got,) = run(tmp_path / "half.onnx", images)
    expected = reference(images, weights)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=3e-3)
    assert np.abs(got - expected).max() < 0.5 * np.abs(run(network, images)[0] - expected).max()


def test_the_graph_has_casts_at_the_borders_only(detector, tmp_path):
    network, _ = detector
    halve(network, tmp_path / "half.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "half.onnx").graph.node]
    assert kinds == ["Cast", "Transpose", "Cast", "Conv", "Relu", "Conv", "Cast", "Mul", "Conv"]
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert types == {
        "w1.half": TensorProto.FLOAT16,
        "b1.half": TensorProto.FLOAT16,
        "w2.half": TensorProto.FLOAT16,
        "window": TensorProto.FLOAT,
    }


def test_a_moving_average_is_no_learnt_layer(detector):
    network, _ = detector
    assert [node.output[0] for node in learnt(onnx.load(network))] == ["a", "c"]


def test_what_several_read_is_cast_once(images, tmp_path):
    """A residual: the picture goes into a layer twice and past it once; a layer's output is a result as well."""
    weights = {"w": np.random.default_rng(2).normal(size=(3, 3, 1, 1)).astype(np.float32) / 50}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["features"]),
        helper.make_node("Sub", ["x", "features"], ["grid"]),
    ]
    shape = (3, SIDE, SIDE)
    save(tmp_path / "net.onnx", nodes, weights, {"features": shape, "grid": shape})
    halve(tmp_path / "net.onnx", tmp_path / "half.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "half.onnx").graph.node]
    assert kinds == ["Cast", "Transpose", "Cast", "Conv", "Conv", "Add", "Conv", "Cast", "Sub"]
    for got, expected in zip(run(tmp_path / "half.onnx", images), run(tmp_path / "net.onnx", images), strict=True):
        np.testing.assert_allclose(got, expected, atol=5e-3 * np.abs(expected).max())


def test_a_weight_outside_float16_is_refused(detector, tmp_path):
    network, weights = detector
    model = onnx.load(network)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights["w1"] * 1e8, "w1"))
    onnx.save(model, network)
    with pytest.raises(ValueError, match=r"weight w1: its largest value .* is outside float16"):
        halve(network, tmp_path / "half.onnx")


def test_the_same_network_gives_the_same_file(detector, tmp_path):
    halve(detector[0], tmp_path / "a.onnx")
    halve(detector[0], tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_doubling_stays_in_float16_and_its_scales_in_float32(images, tmp_path):
    network = doubling(tmp_path, (1, 1, 2, 2))
    halve(network, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    assert [node.op_type for node in model.graph.node] == [
        "Cast",
        "Transpose",
        "Cast",
        "Conv",
        "Resize",
        "Conv",
        "Cast",
    ]
    assert {t.name: t.data_type for t in model.graph.initializer}["scales"] == TensorProto.FLOAT
    (got,), (whole,) = run(tmp_path / "half.onnx", images), run(network, images)
    assert got.shape == whole.shape == (3, 2, 2 * SIDE, 2 * SIDE)
    np.testing.assert_allclose(got, whole, atol=2e-2)
    assert not np.array_equal(got, whole)
