"""What several networks of an ensemble compute alike, computed once: they are rewritten to go on from one another.

Values are numbered. Two values are one where the same operator with the same attributes makes them from the same
values; weights are the same by their content, whatever they are called, and pictures by their size. Of what a network
needs, the last values that a network before it has made too become its inputs, and outputs of that other one. Their
names carry their numbers (`contract.COMMON_PREFIX`). Nothing is shared without a learnt layer behind it: the rest costs
less than handing it over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from engine import bundle as bundles
from engine.contract import COMMON_PREFIX, INPUT_NAME, File, Precision
from engine.types import F32, U8

TOLERANCE = 1e-5  # of the largest value of an output: other sums are in other orders
_LEARNT = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NUMBER_DIGITS = 16
_NOISE = 2  # pictures

Number = str


def write(folder: Path, networks: Mapping[str, Path], precision: Precision) -> dict[str, File]:
    """Write what members that have something in common are to run in the place of `networks`, their own ONNX files by
    their names, in the order in which they run.

    Raises ValueError where the outputs are not the same.
    """
    models = [onnx.load(path) for path in networks.values()]
    rewritten = shared(models)
    if not agree(models, rewritten):
        raise ValueError(f"going on from one another changes outputs by more than {TOLERANCE:g} of the largest value")
    found = {}
    for name, model in zip(networks, rewritten, strict=True):
        if model is not None:
            path = folder / f"{name}.{precision}.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
            found[name] = bundles.describe(path, folder)
    return found


def shared(models: Sequence[ModelProto]) -> list[ModelProto | None]:
    """Of each model, in the order in which they run, the one to run in its place; None: it has nothing in common."""
    plans: list[_Plan] = []
    made: dict[Number, _Plan] = {}
    for model in models:
        plan = _Plan.of(_Numbered.of(model), frozenset(made))
        for number in plan.takes:
            made[number].gives.add(number)
        made |= {number: plan for number in plan.offers if number not in made}
        plans.append(plan)
    return [plan.model() if plan.takes or plan.gives else None for plan in plans]


def agree(models: Sequence[ModelProto], rewritten: Sequence[ModelProto | None]) -> bool:
    """Whether rewritten models, run one after the other by ONNX Runtime, give what the models give of noise."""
    random = np.random.default_rng(0)
    pictures: dict[tuple[int, ...], U8] = {}
    common: dict[str, F32] = {}
    for model, other in zip(models, rewritten, strict=True):
        if other is None:
            continue
        size = tuple(int(side) for side in _sizes(model.graph.input[0])[1:])
        images = pictures.setdefault(size, random.integers(0, 256, (_NOISE, *size), dtype=np.uint8))
        expected = _run(model, {INPUT_NAME: images})
        got = _run(other, {INPUT_NAME: images, **common})
        common |= {name: got.pop(name) for name in list(got) if name.startswith(COMMON_PREFIX)}
        if set(got) != set(expected) or not all(_close(got[name], expected[name]) for name in got):
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A model whose values have numbers.

    `numbers` are those of all values by name, `maker` the node that makes one, `handed_on` the values that can go from
    one network to another: float32 of one row a picture, with a learnt layer behind them.
    """

    source: ModelProto
    numbers: dict[str, Number]
    maker: dict[str, NodeProto]
    handed_on: dict[str, ValueInfoProto]

    @classmethod
    def of(cls, model: ModelProto) -> _Numbered:
        graph = model.graph
        numbers = {"": ""}
        numbers |= {value.name: _number("input", value.name, value.type.SerializeToString()) for value in graph.input}
        numbers |= {tensor.name: _number("weight", *_content(tensor)) for tensor in graph.initializer}
        versions = {opset.domain: opset.version for opset in model.opset_import}
        learnt: set[str] = set()
        for node in graph.node:
            what = _operator(node, versions)
            for i, name in enumerate(node.output):
                numbers[name] = _number(what, str(i), *(numbers[given] for given in node.input))
            if node.op_type in _LEARNT or learnt & set(node.input):
                learnt |= set(node.output)
        known = onnx.shape_inference.infer_shapes(model).graph
        rows = _sizes(graph.input[0])[0]
        values = [value for value in (*known.value_info, *known.output) if value.name in learnt]
        return cls(
            model,
            numbers,
            {name: node for node in graph.node for name in node.output},
            {value.name: value for value in values if _is_handed_on(value, rows)},
        )


@dataclass(slots=True)
class _Plan:
    """What is left of a model: `nodes`, in order, without those whose results it `takes` from models before it.

    `takes`, `offers` and `gives` are numbers: what it takes, what it could give, and what a later model takes from it.
    """

    of_model: _Numbered
    nodes: list[NodeProto]
    takes: dict[Number, str]
    offers: dict[Number, str]
    gives: set[Number] = field(default_factory=set)

    @classmethod
    def of(cls, numbered: _Numbered, made: frozenset[Number]) -> _Plan:
        """Follow the outputs back to the weights, the picture, or what has been made."""
        takes: dict[Number, str] = {}
        needed: set[str] = set()
        open_ends = [value.name for value in numbered.source.graph.output]
        while open_ends:
            name = open_ends.pop()
            number = numbered.numbers[name]
            if name in numbered.handed_on and number in made:
                takes.setdefault(number, name)
            elif name in numbered.maker and name not in needed:
                needed |= set(numbered.maker[name].output)
                open_ends += [given for given in numbered.maker[name].input if given]
        nodes = [node for node in numbered.source.graph.node if needed & set(node.output)]
        made_here = {name for node in nodes for name in node.output}
        offers = {numbered.numbers[name]: name for name in numbered.handed_on if name in made_here}
        return cls(numbered, nodes, takes, offers)

    def model(self) -> ModelProto:
        """The model that is left, with what it takes and gives as inputs and outputs."""
        source = self.of_model.source
        aliases = self._aliases()
        nodes = [
            *(helper.make_node("Identity", [_common(number)], [name]) for name, number in aliases.items()),
            *self.nodes,
            *(helper.make_node("Identity", [self.offers[n]], [_common(n)]) for n in sorted(self.gives)),
        ]
        used = {name for node in nodes for name in node.input}
        picture = source.graph.input[0]
        takes = [_tensor(number, self.of_model.handed_on[name]) for number, name in sorted(self.takes.items())]
        gives = [_tensor(number, self.of_model.handed_on[self.offers[number]]) for number in sorted(self.gives)]
        graph = helper.make_graph(
            nodes,
            source.graph.name,
            [*([picture] if picture.name in used else []), *takes],
            [*source.graph.output, *gives],
            [tensor for tensor in source.graph.initializer if tensor.name in used],
        )
        left = helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)
        onnx.checker.check_model(left)
        return left

    def _aliases(self) -> dict[str, Number]:
        """Every name by which its nodes or its outputs know what it takes: equal values may have several."""
        wanted = {name for node in self.nodes for name in node.input}
        wanted |= {value.name for value in self.of_model.source.graph.output}
        here = {name for node in self.nodes for name in node.output}
        numbers = {name: self.of_model.numbers[name] for name in sorted(wanted - here)}
        return {name: number for name, number in numbers.items() if number in self.takes}


def _common(number: Number) -> str:
    return COMMON_PREFIX + number


def _tensor(number: Number, like: ValueInfoProto) -> ValueInfoProto:
    tensor = ValueInfoProto()
    tensor.CopyFrom(like)
    tensor.name = _common(number)
    return tensor


def _number(*parts: str | bytes) -> Number:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:_NUMBER_DIGITS]


def _operator(node: NodeProto, versions: dict[str, int]) -> bytes:
    """Everything of a node but the names in it."""
    parts = [node.domain, node.op_type, str(versions.get(node.domain, 0))]
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    return bytes.fromhex(_number(*parts, *(part for each in attributes for part in _attribute(each))))


def _attribute(attribute: AttributeProto) -> Iterable[str | bytes]:
    if attribute.type == AttributeProto.TENSOR:
        return (attribute.name, *_content(attribute.t))
    plain = AttributeProto()
    plain.CopyFrom(attribute)
    plain.doc_string = ""
    return (attribute.name, plain.SerializeToString(deterministic=True))


def _content(tensor: TensorProto) -> tuple[str, str, bytes]:
    array = numpy_helper.to_array(tensor)
    return str(tensor.data_type), str(array.shape), array.tobytes()


def _sizes(value: ValueInfoProto) -> list[str | int]:
    """Each dimension's size, or its name."""
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim]


def _is_handed_on(value: ValueInfoProto, rows: str | int) -> bool:
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT or not tensor.HasField("shape"):
        return False
    first, *others = _sizes(value) or [""]
    return first != "" and first == rows and all(isinstance(size, int) and size > 0 for size in others)


def _run(model: ModelProto, tensors: dict[str, U8 | F32]) -> dict[str, F32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {node.name: tensors[node.name] for node in session.get_inputs()}
    return dict(zip([node.name for node in session.get_outputs()], session.run(None, given), strict=True))


def _close(got: F32, expected: F32) -> bool:
    return bool(np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max())
