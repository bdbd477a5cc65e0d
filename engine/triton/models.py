"""The Triton models of a bundle: their configurations, from the contract.

    detector = network -> map -> decision        the whole, calibrated
    METHOD = network -> map                      the member, raw

`detector` and METHOD are ensembles that every new version of a bundle replaces. The models that they are made of, and
an ensemble METHOD-TAG like METHOD, carry the bundle's tag in their names and never change: no request can meet the
network of one version and the thresholds of another.
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
from engine.triton.served import Served

MAX_BATCH = 32
_NETWORK_DELAY_US = 2000
_BUNDLE, _PRECISION = "bundle", "precision"
_MEMBER_TENSORS = {RAW_SCORE: "member_score", RAW_MAP: "member_map"}  # inside `detector`
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
        """The member that stays the same when another version is published."""
        return f"{self.method}-{self.tag}"

    @property
    def network(self) -> str:
        """Pictures to the graph's outputs."""
        return f"{self.member}-network"

    @property
    def map(self) -> str:
        """The graph's outputs to raw scores and maps."""
        return f"{self.member}-map"

    @property
    def decision(self) -> str:
        """Raw scores and maps to calibrated ones."""
        return f"{self.member}-decision"

    @property
    def fixed(self) -> tuple[str, ...]:
        """All that never change, in the order in which they can be loaded."""
        return self.network, self.map, self.decision, self.member


def fixed_models(served: Served) -> tuple[ModelConfig, ...]:
    """Network, map, decision and the member under its tagged name."""
    names = Names.of(served)
    height, width = served.manifest.input.height, served.manifest.input.width
    picture = Tensor(INPUT_NAME, "TYPE_UINT8", (height, width, 3))
    raw = _raw(height, width)
    gpu = served.flavour == "gpu"
    near = Instances("KIND_GPU" if gpu else "KIND_CPU", 1, 0)
    network = Instances(near.kind, 1, _NETWORK_DELAY_US)
    runner = "tensorrt" if gpu else "python"
    head_parameters = _STAY_ON_DEVICE if gpu else {}
    return (
        ModelConfig(names.network, MAX_BATCH, (picture,), served.outputs, backend=runner, instances=network),
        ModelConfig(
            names.map, MAX_BATCH, served.outputs, raw, backend="python", instances=near, parameters=head_parameters
        ),
        ModelConfig(
            names.decision,
            MAX_BATCH,
            raw,
            _judged(height, width),
            backend="python",
            instances=Instances("KIND_CPU", 1, 0),
        ),
        member_model(served, names.member, 1),
    )


def member_model(served: Served, name: str, version: int) -> ModelConfig:
    """The ensemble of network and map under a name."""
    height, width = served.manifest.input.height, served.manifest.input.width
    return ModelConfig(
        name,
        MAX_BATCH,
        (_image(height, width),),
        _raw(height, width),
        version=version,
        steps=_member_steps(Names.of(served), served.outputs, _same((RAW_SCORE, RAW_MAP))),
        parameters=_parameters(served),
    )


def detector_model(served: Served, version: int) -> ModelConfig:
    """`detector`: the member and its decision.

    Every output comes from the decision, `raw_score` too: a request for nothing but an output of an earlier step makes
    Triton's ensemble scheduler give up (2.51: "unexpected deadlock").
    """
    height, width = served.manifest.input.height, served.manifest.input.width
    names, judged = Names.of(served), _judged(height, width)
    last = Step(names.decision, _MEMBER_TENSORS, _same(tensor.name for tensor in judged))
    return ModelConfig(
        DETECTOR_MODEL,
        MAX_BATCH,
        (_image(height, width),),
        judged,
        version=version,
        steps=(*_member_steps(names, served.outputs, _MEMBER_TENSORS), last),
        parameters=_parameters(served),
    )


def _member_steps(names: Names, outputs: tuple[Tensor, ...], raw: Mapping[str, str]) -> tuple[Step, ...]:
    """Network and map; `raw` says what the ensemble calls the raw score and map."""
    between = _same(tensor.name for tensor in outputs)
    return (
        Step(names.network, {INPUT_NAME: TRITON_IMAGE}, between),
        Step(names.map, between, raw),
    )


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _image(height: int, width: int) -> Tensor:
    return Tensor(TRITON_IMAGE, "TYPE_UINT8", (height, width, 3))


def _raw(height: int, width: int) -> tuple[Tensor, ...]:
    return Tensor(RAW_SCORE, "TYPE_FP32", (1,)), Tensor(RAW_MAP, "TYPE_FP32", (height, width))


def _judged(height: int, width: int) -> tuple[Tensor, ...]:
    return (
        Tensor(PRED_SCORE, "TYPE_FP32", (1,)),
        Tensor(PRED_LABEL, "TYPE_BOOL", (1,)),
        Tensor(RAW_SCORE, "TYPE_FP32", (1,)),
        Tensor(ANOMALY_MAP, "TYPE_FP32", (height, width)),
        Tensor(PRED_MASK, "TYPE_UINT8", (height, width)),
    )


def _parameters(served: Served) -> dict[str, str]:
    return {_BUNDLE: served.manifest.model, _PRECISION: served.precision}
