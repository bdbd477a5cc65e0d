"""A Triton model's configuration as frozen structs, and its text: the one place that writes `config.pbtxt`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

DataType = Literal["TYPE_UINT8", "TYPE_FP16", "TYPE_FP32", "TYPE_BOOL"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: `dims` without the batch; () is one number a picture, as (N,) in the model's own hands."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A model of an ensemble: its tensors' names to the ensemble's."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Instances:
    """Where and how often a model is loaded, and how long a batch may wait to grow."""

    kind: Literal["KIND_CPU", "KIND_GPU"]
    count: int
    max_queue_delay_us: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model. It is an ensemble where it has steps; else it runs on `backend` as `instances` say and is warmed up.

    Only `version` is served, whatever other versions lie beside it.
    """

    name: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    version: int = 1
    backend: str = ""
    instances: Instances | None = None
    steps: tuple[Step, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """`config.pbtxt`."""
        return "\n".join(_lines(self)) + "\n"


def _lines(model: ModelConfig) -> Iterator[str]:
    yield f"name: {_quoted(model.name)}"
    yield 'platform: "ensemble"' if model.steps else _runner(model.backend)
    yield f"max_batch_size: {model.max_batch_size}"
    yield from _tensors("input", model.inputs)
    yield from _tensors("output", model.outputs)
    yield f"version_policy {{ specific {{ versions: [ {model.version} ] }} }}"
    if model.instances is not None:
        yield f"instance_group [ {{ kind: {model.instances.kind} count: {model.instances.count} }} ]"
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {model.instances.max_queue_delay_us} }}"
        yield from _warmup(model.inputs)
    if model.steps:
        yield from _ensemble(model.steps)
    for key, value in model.parameters.items():
        yield f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _runner(backend: str) -> str:
    return 'platform: "tensorrt_plan"' if backend == "tensorrt" else f"backend: {_quoted(backend)}"


def _tensors(kind: str, tensors: tuple[Tensor, ...]) -> Iterator[str]:
    yield f"{kind} ["
    for i, tensor in enumerate(tensors):
        dims = _dims(tensor) if tensor.dims else f"{_dims(tensor)} reshape {{ shape: [ ] }}"
        comma = "," if i < len(tensors) - 1 else ""
        yield f"  {{ name: {_quoted(tensor.name)} data_type: {tensor.data_type} {dims} }}{comma}"
    yield "]"


def _dims(tensor: Tensor) -> str:
    return f"dims: [ {', '.join(map(str, tensor.dims or (1,)))} ]"


def _warmup(inputs: tuple[Tensor, ...]) -> Iterator[str]:
    yield "model_warmup ["
    yield '  { name: "zeros" batch_size: 1'
    for tensor in inputs:
        value = f"data_type: {tensor.data_type} {_dims(tensor)} zero_data: true"
        yield f"    inputs {{ key: {_quoted(tensor.name)} value {{ {value} }} }}"
    yield "  }"
    yield "]"


def _ensemble(steps: tuple[Step, ...]) -> Iterator[str]:
    yield "ensemble_scheduling {"
    yield "  step ["
    for i, step in enumerate(steps):
        yield f"    {{ model_name: {_quoted(step.model)} model_version: 1"
        yield from _mapped("input_map", step.inputs)
        yield from _mapped("output_map", step.outputs)
        yield "    }" + ("," if i < len(steps) - 1 else "")
    yield "  ]"
    yield "}"


def _mapped(kind: str, names: Mapping[str, str]) -> Iterator[str]:
    for name, value in names.items():
        yield f"      {kind} {{ key: {_quoted(name)} value: {_quoted(value)} }}"


def _quoted(text: str) -> str:
    return json.dumps(text)
