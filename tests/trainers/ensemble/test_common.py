"""What networks have in common, by hand-made networks and against each of them run by itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trainers.ensemble import common

SIDE = 8
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32) / 100


def network(prefix="", *, side=SIDE, weights=WEIGHTS, pad=1, last="Relu", convolution=True):
    """(N, side, side, 3) uint8 -> features (N, C, side, side): a convolution, and `last` on what comes of it."""
    names = {name: prefix + name for name in ("float", "chw", "mixed", "w")}
    nodes = [
        helper.make_node("Cast", ["image"], [names["float"]], to=TensorProto.FLOAT),
        helper.make_node("Transpose", [names["float"]], [names["chw"]], name=prefix + "turn", perm=[0, 3, 1, 2]),
    ]
    if convolution:
        nodes.append(helper.make_node("Conv", [names["chw"], names["w"]], [names["mixed"]], pads=[pad] * 4))
    nodes.append(helper.make_node(last, [names["mixed" if convolution else "chw"]], ["features"]))
    channels, grid = (len(weights), side + 2 * pad - 2) if convolution else (3, side)
    graph = helper.make_graph(
        nodes,
        "a network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", channels, grid, grid])],
        [numpy_helper.from_array(weights, names["w"])] if convolution else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def run(model, given):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = {node.name: given[node.name] for node in session.get_inputs()}
    return dict(zip([node.name for node in session.get_outputs()], session.run(None, wanted), strict=True))


def chain(models):
    """The features of each, one after the other."""
    images = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    known = {"image": images}
    for model in models:
        known |= run(model, known)
        yield known.pop("features"), images


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_the_same_computation_under_other_names_is_handed_on():
    models = [network("a."), network("b.", last="Sigmoid"), network("c.", last="Tanh")]
    rewritten = common.shared(models)
    assert [operators(model) for model in rewritten] == [
        ["Cast", "Transpose", "Conv", "Relu", "Identity"],
        ["Identity", "Sigmoid"],
        ["Identity", "Tanh"],
    ]
    assert [[given.name for given in model.graph.input] for model in rewritten[1:]] == [
        [rewritten[0].graph.output[1].name]
    ] * 2
    for model, (got, images) in zip(models, chain(rewritten), strict=True):
        np.testing.assert_allclose(got, run(model, {"image": images})["features"], rtol=1e-6)
    assert common.agree(models, rewritten)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": WEIGHTS + np.float32(1e-6)},
        {"weights": WEIGHTS[:3]},
        {"pad": 0},
        {"side": 16},
    ],
)
def test_another_weight_attribute_or_size_is_another_computation(other):
    assert common.shared([network(), network(last="Sigmoid", **other)]) == [None, None]


def test_what_no_learnt_layer_lies_behind_is_not_worth_handing_on():
    assert common.shared([network(convolution=False), network(convolution=False, last="Sigmoid")]) == [None, None]


def test_the_whole_of_a_network_may_be_another_s():
    rewritten = common.shared([network("a."), network("b.")])
    assert operators(rewritten[1]) == ["Identity"]
    first, second = (features for features, _ in chain(rewritten))
    np.testing.assert_array_equal(first, second)


def test_a_network_in_between_neither_gives_nor_takes():
    stranger = network("s.", weights=-WEIGHTS)
    rewritten = common.shared([network("a."), stranger, network("b.", last="Sigmoid")])
    assert [model is None for model in rewritten] == [False, True, False]


def test_a_wrong_rewriting_is_noticed(tmp_path, monkeypatch):
    models = [network("a."), network("b.", last="Sigmoid")]
    wrong = common.shared([network("a."), network("b.", last="Tanh")])
    assert not common.agree(models, wrong)
    paths = {name: tmp_path / f"{name}.onnx" for name in "ab"}
    for model, path in zip(models, paths.values(), strict=True):
        onnx.save(model, path)
    monkeypatch.setattr(common, "shared", lambda _: wrong)
    with pytest.raises(ValueError, match="changes outputs by more than 1e-05"):
        common.write(tmp_path, paths, "fp32")
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}


def test_the_same_networks_give_the_same_bytes():
    def made():
        rewritten = common.shared([network("a."), network("b.", last="Tanh")])
        return [model.SerializeToString(deterministic=True) for model in rewritten]

    assert made() == made()
