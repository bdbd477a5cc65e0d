"""The Triton models of a bundle: their configurations, from the contract.

    detector = METHOD-TAG -> decision                       the whole, calibrated
    METHOD = METHOD-TAG                                     the member, raw
    detector = MEMBER-TAG of each -> fusion -> decision     of an ensemble's bundle

`detector` and the members are Triton ensembles that every new version of a bundle replaces. The models that they are
made of carry the tag of the member's bundle in their names and never change: no request can meet the network of one
version and the thresholds of another.

METHOD-TAG is network and map of one bundle, on pictures of its own size. On a GPU it is an ensemble of a TensorRT plan
and the map, between which features stay on the device. On a CPU it is one model: features are the largest tensor of
all, and Triton would copy them three times from one process to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.contract import (
    ANOMALY_MAP,
    DETECTOR_MODEL,
    INPUT_NAME,
    PRED_LABEL,
    PRED_MASK,
    PRED_SCORE,
    RAW_MAP,
    RAW_SCORE,
    TRITON_IMAGE,
)
from engine.triton.pbtxt import Instances, ModelConfig, Step, Tensor
from engine.triton.served import Served, Size

MAX_BATCH = 32
_NETWORK_DELAY_US = 2000
_BUNDLE, _PRECISION = "bundle", "precision"
_WHOLE = {RAW_SCORE: "whole_score", RAW_MAP: "whole_map"}  # inside `detector`
_STAY_ON_DEVICE = {"FORCE_CPU_ONLY_INPUT_TENSORS": "no"}


@dataclass(frozen=True, slots=True)
class Names:
    """The models of one bundle."""

    method: str
    tag: str

    @classmethod
    def of(cls, served: Served) -> Names:
        """Its names."""
        return cls(served.manifest.method, served.tag)

    @property
    def member(self) -> str:
        """Pictures to raw scores and maps, the same whatever is published later."""
        return f"{self.method}-{self.tag}"

    @property
    def network(self) -> str:
        """On a GPU: pictures to the graph's outputs."""
        return f"{self.member}-network"

    @property
    def map(self) -> str:
        """On a GPU: the graph's outputs to raw scores and maps."""
        return f"{self.member}-map"

    @property
    def decision(self) -> str:
        """Raw scores and maps to calibrated ones."""
        return f"{self.member}-decision"

    @property
    def fusion(self) -> str:
        """Of an ensemble: its members' raw scores and maps to its own."""
        return f"{self.member}-fusion"

    def resized(self, size: Size) -> str:
        """Of an ensemble: pictures to the (height, width) px of members that take another size."""
        return f"{self.member}-resize-{size[0]}x{size[1]}"


def fixed_models(served: Served) -> tuple[ModelConfig, ...]:
    """All that never change, in the order in which they can be loaded."""
    if not served.members:
        return (*_raw_models(served), _decision_model(served))
    found = [model for member in served.members for model in _raw_models(member)]
    found += [_resizing_model(served, size) for size in _other_sizes(served)]
    found += [_fusion_model(served), _decision_model(served)]
    return tuple({model.name: model for model in found}.values())  # members may be the same model twice


def public_models(served: Served, version: int) -> tuple[ModelConfig, ...]:
    """What clients ask for, as a version of its number: each member under its name, and `detector` last."""
    members = served.members or (served,)
    return (*(_member_model(served, member, version) for member in members), _detector_model(served, version))


def _raw_models(served: Served) -> tuple[ModelConfig, ...]:
    """METHOD-TAG of one bundle, after what it is made of."""
    names, pictures, raw = Names.of(served), (_image(served.size),), _raw(served.size)
    if served.flavour == "cpu":
        instances = Instances("KIND_CPU", 1, _NETWORK_DELAY_US)
        own = _parameters(served)
        return (
            ModelConfig(names.member, MAX_BATCH, pictures, raw, backend="python", instances=instances, parameters=own),
        )
    between = _same(tensor.name for tensor in served.outputs)
    network = Step(names.network, {INPUT_NAME: TRITON_IMAGE}, between)
    last = Step(names.map, between, _same((RAW_SCORE, RAW_MAP)))
    picture = Tensor(INPUT_NAME, "TYPE_UINT8", (*served.size, 3))
    plan, near = Instances("KIND_GPU", 1, _NETWORK_DELAY_US), Instances("KIND_GPU", 1, 0)
    return (
        ModelConfig(names.network, MAX_BATCH, (picture,), served.outputs, backend="tensorrt", instances=plan),
        ModelConfig(
            names.map, MAX_BATCH, served.outputs, raw, backend="python", instances=near, parameters=_STAY_ON_DEVICE
        ),
        ModelConfig(names.member, MAX_BATCH, pictures, raw, steps=(network, last), parameters=_parameters(served)),
    )


def _decision_model(served: Served) -> ModelConfig:
    return _on_host(Names.of(served).decision, _raw(served.size), _judged(served.size))


def _fusion_model(served: Served) -> ModelConfig:
    tensors = [
        tensor
        for member in served.members
        for tensor in zip(_own(member.name).values(), _raw(member.size), strict=True)
    ]
    inputs = tuple(Tensor(name, raw.data_type, raw.dims) for name, raw in tensors)
    return _on_host(Names.of(served).fusion, inputs, _raw(served.size))


def _resizing_model(served: Served, size: Size) -> ModelConfig:
    picture = Tensor(INPUT_NAME, "TYPE_UINT8", (*size, 3))
    return _on_host(Names.of(served).resized(size), (_image(served.size),), (picture,))


def _on_host(name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> ModelConfig:
    return ModelConfig(name, MAX_BATCH, inputs, outputs, backend="python", instances=Instances("KIND_CPU", 1, 0))


def _member_model(whole: Served, member: Served, version: int) -> ModelConfig:
    """A member under the name that clients know, on pictures of the whole's size."""
    return ModelConfig(
        member.name,
        MAX_BATCH,
        (_image(whole.size),),
        _raw(member.size),
        version=version,
        steps=_member_steps(whole, member, _same((RAW_SCORE, RAW_MAP))),
        parameters=_parameters(member),
    )


def _detector_model(served: Served, version: int) -> ModelConfig:
    """`detector`: the members, their fusion where there are several, and the decision.

    Every output comes from the decision, `raw_score` too: a request for nothing but an output of an earlier step makes
    Triton's ensemble scheduler give up (2.51: "unexpected deadlock").
    """
    names, judged = Names.of(served), _judged(served.size)
    last = Step(names.decision, _WHOLE, _same(tensor.name for tensor in judged))
    return ModelConfig(
        DETECTOR_MODEL,
        MAX_BATCH,
        (_image(served.size),),
        judged,
        version=version,
        steps=(*_raw_steps(served), last),
        parameters=_parameters(served),
    )


def _raw_steps(served: Served) -> tuple[Step, ...]:
    """From IMAGE to the raw score and map of the whole."""
    if not served.members:
        return _member_steps(served, served, _WHOLE)
    steps = [step for member in served.members for step in _member_steps(served, member, _own(member.name))]
    given = [name for member in served.members for name in _own(member.name).values()]
    return (*steps, Step(Names.of(served).fusion, _same(given), _WHOLE))


def _member_steps(whole: Served, member: Served, raw: Mapping[str, str]) -> tuple[Step, ...]:
    """The member, and a resize before it for another size; `raw` says how the ensemble calls score and map."""
    name = Names.of(member).member
    if member.size == whole.size:
        return (Step(name, _same((TRITON_IMAGE,)), raw),)
    own = f"{member.name}_{TRITON_IMAGE}"
    resize = Step(Names.of(whole).resized(member.size), _same((TRITON_IMAGE,)), {INPUT_NAME: own})
    return resize, Step(name, {TRITON_IMAGE: own}, raw)


def _other_sizes(served: Served) -> tuple[Size, ...]:
    return tuple(dict.fromkeys(member.size for member in served.members if member.size != served.size))


def _own(member: str) -> dict[str, str]:
    """What a member's raw score and map are called among others', also by the fusion's inputs."""
    return {RAW_SCORE: f"{member}_{RAW_SCORE}", RAW_MAP: f"{member}_{RAW_MAP}"}


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _image(size: Size) -> Tensor:
    return Tensor(TRITON_IMAGE, "TYPE_UINT8", (*size, 3))


def _raw(size: Size) -> tuple[Tensor, ...]:
    return Tensor(RAW_SCORE, "TYPE_FP32", (1,)), Tensor(RAW_MAP, "TYPE_FP32", size)


def _judged(size: Size) -> tuple[Tensor, ...]:
    return (
        Tensor(PRED_SCORE, "TYPE_FP32", (1,)),
        Tensor(PRED_LABEL, "TYPE_BOOL", (1,)),
        Tensor(RAW_SCORE, "TYPE_FP32", (1,)),
        Tensor(ANOMALY_MAP, "TYPE_FP32", size),
        Tensor(PRED_MASK, "TYPE_UINT8", size),
    )


def _parameters(served: Served) -> dict[str, str]:
    return {_BUNDLE: served.manifest.model, _PRECISION: served.precision}
