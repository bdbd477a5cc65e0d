"""The build record beside a plan, `NAME.plan.json`, and whether a plan fits a machine by it. Pure but for two files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from engine.contract import Precision, Struct
from engine.errors import BundleError
from engine.machine import Gpu
from engine.plans.build import BuildOptions, Profile
from engine.plans.library import BuilderName

Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class PlanRecord(Struct, frozen=True):
    """How a plan was made. `device` is where (None: built without a GPU, which TensorRT-RTX can), `batch` the profile.

    `network_sha256` is that of the ONNX file it was built from.
    """

    builder: BuilderName
    builder_version: str
    device: str | None
    capability: tuple[int, int] | None
    precision: Precision
    batch: tuple[int, int, int]
    version_compatible: bool
    network_sha256: Hash
    plan_sha256: Hash
    schema_version: Literal[1] = 1

    @property
    def options(self) -> BuildOptions:
        """What to build it again with."""
        return BuildOptions(Profile(*self.batch), self.version_compatible)


def misfit(
    record: PlanRecord, *, network_sha256: str, builder: BuilderName, builder_version: str, gpu: Gpu | None
) -> str | None:
    """Why a plan cannot be used for a network with a TensorRT on a device; None where it fits.

    Plans of TensorRT-RTX are compiled for the device when they are loaded; those of the full one hold its kernels.
    """
    if record.network_sha256 != network_sha256:
        return "it was built from another ONNX file"
    if record.builder != builder:
        return f"it was built by {record.builder}, this machine has {builder}"
    if record.builder_version != builder_version and not record.version_compatible:
        return f"it was built by {builder} {record.builder_version}, this is {builder_version}"
    if builder == "tensorrt" and gpu is not None and (record.device, record.capability) != (gpu.name, gpu.capability):
        return f"it was built on {record.device}, this is {gpu.name}"
    return None


def path_of(plan: Path) -> Path:
    """Where the record of a plan lies."""
    return plan.with_name(plan.name + ".json")


def read(plan: Path) -> PlanRecord | None:
    """The record beside a plan; None where there is none. Raises BundleError for one that is damaged."""
    path = path_of(plan)
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlanRecord)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BundleError(f"{path}: not a build record ({error}); remove it, and the plan is built again") from error


def write(plan: Path, record: PlanRecord) -> None:
    """Write the record of a plan."""
    path_of(plan).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
