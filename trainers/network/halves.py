"""An ONNX network with its learnt layers in float16 and everything around them in float32.

TensorRT takes the precision of every operator from the graph. What gains from halves are the layers that multiply by
learnt weights and what lies between them. What turns their outputs into distances does not: squared errors, variances
and ratios of the structural similarity cancel, and lose in float16 the digits that the score is made of.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trainers.network import layers

# What may lie between two learnt layers without leaving float16.
_BETWEEN = frozenset(
    {"Relu", "Clip", "Add", "Mul", "Sigmoid", "MaxPool", "AveragePool", "Concat", "Reshape", "Flatten", "Resize"}
)
_HALF_MAX = float(np.finfo(np.float16).max)


def halve(network: Path, out: Path) -> None:
    """Write the float16 form of a float32 ONNX file; inputs and outputs keep their types.

    Raises ValueError where a weight is too large for float16.
    """
    model = onnx.load(network)
    graph = _Graph.of(model)
    _rewrite(model, graph, graph.halves())
    onnx.checker.check_model(model)
    out.write_bytes(model.SerializeToString(deterministic=True))


@dataclass(frozen=True, slots=True)
class _Graph:
    """Who makes and who reads each tensor; `weights` are the float32 initialisers."""

    nodes: list[NodeProto]
    learnt: frozenset[int]
    maker: dict[str, int]
    readers: dict[str, list[int]]
    weights: dict[str, npt.NDArray[np.float32]]
    constants: frozenset[str]
    outputs: frozenset[str]

    @classmethod
    def of(cls, model: ModelProto) -> _Graph:
        nodes = list(model.graph.node)
        readers: dict[str, list[int]] = {}
        for i, node in enumerate(nodes):
            for name in node.input:
                readers.setdefault(name, []).append(i)
        initialisers = model.graph.initializer
        floats = {t.name: numpy_helper.to_array(t) for t in initialisers if t.data_type == TensorProto.FLOAT}
        learnt = {node.output[0] for node in layers.learnt(model)}
        return cls(
            nodes,
            frozenset(i for i, node in enumerate(nodes) if node.output[0] in learnt),
            {name: i for i, node in enumerate(nodes) for name in node.output},
            readers,
            floats,
            frozenset(t.name for t in initialisers),
            frozenset(value.name for value in model.graph.output),
        )

    def halves(self) -> set[int]:
        """The nodes to run in float16: learnt layers, and what only passes numbers from one to the next."""
        chosen = set(self.learnt)
        for i, node in enumerate(self.nodes):  # nodes are in order: what feeds one has been decided
            if node.op_type in _BETWEEN and self._made_by(node) <= chosen and self._made_by(node):
                chosen.add(i)
        for i in sorted(chosen - self.learnt, reverse=True):
            if not self._read_by(self.nodes[i]) <= chosen or self.outputs & set(self.nodes[i].output):
                chosen.discard(i)
        return chosen

    def _made_by(self, node: NodeProto) -> set[int]:
        """The nodes that make its inputs; -1 stands for the picture."""
        return {self.maker.get(name, -1) for name in node.input if name and name not in self.constants}

    def _read_by(self, node: NodeProto) -> set[int]:
        return {reader for name in node.output for reader in self.readers.get(name, [])}


def _rewrite(model: ModelProto, graph: _Graph, halves: set[int]) -> None:
    """Give the chosen nodes float16 inputs, weights and outputs, and cast where the two kinds meet."""
    writer = _Writer(graph, halves, [], {}, Counter())
    for i, node in enumerate(graph.nodes):
        writer.put(i, node)
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    used = {name for node in writer.nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in writer.halved.items()]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]  # types of inner tensors, which have changed


@dataclass(frozen=True, slots=True)
class _Writer:
    """The new graph as it grows. A tensor that a half node makes is named NAME.half, its float32 copy NAME."""

    graph: _Graph
    halves: set[int]
    nodes: list[NodeProto]
    halved: dict[str, npt.NDArray[np.float16]]
    cast: Counter[str]

    def put(self, i: int, node: NodeProto) -> None:
        """Append one node, with the casts that it needs before and after it."""
        if i not in self.halves:
            self.nodes.append(node)
            return
        data = node.input[:1] if node.op_type == "Resize" else node.input  # the others are its scales, float32 always
        inputs = [*map(self._half, data), *node.input[len(data) :]]
        outputs = [f"{name}.half" for name in node.output]
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.ClearField("input")
        changed.ClearField("output")
        changed.input.extend(inputs)
        changed.output.extend(outputs)
        self.nodes.append(changed)
        for name in node.output:
            others = [reader for reader in self.graph.readers.get(name, []) if reader not in self.halves]
            if others or name in self.graph.outputs:
                self._cast(f"{name}.half", name, TensorProto.FLOAT)

    def _half(self, name: str) -> str:
        """The float16 tensor for an input of a half node; integers (shapes, axes) stay as they are."""
        if name in self.graph.weights:
            self.halved.setdefault(f"{name}.half", _to_half(name, self.graph.weights[name]))
            return f"{name}.half"
        if not name or name in self.graph.constants or self.graph.maker.get(name, -1) in self.halves:
            return f"{name}.half" if name and name not in self.graph.constants else name
        if not self.cast[f"{name}.half"]:
            self._cast(name, f"{name}.half", TensorProto.FLOAT16)
        return f"{name}.half"

    def _cast(self, name: str, to: str, dtype: int) -> None:
        self.cast[to] += 1
        self.nodes.append(helper.make_node("Cast", [name], [to], name=f"cast/{to}", to=dtype))


def _to_half(name: str, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    if np.abs(array).max(initial=0) > _HALF_MAX:
        raise ValueError(f"weight {name}: its largest value {np.abs(array).max():.3g} is outside float16")
    return array.astype(np.float16)
