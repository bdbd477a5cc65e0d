"""Plans beside the ONNX files they are built from: read where they fit this machine, else built again."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import Bundle
from engine.contract import Precision
from engine.machine import Gpu, gpu
from engine.plans import record as records
from engine.plans.build import BuildOptions, build
from engine.plans.library import Library
from engine.plans.record import PlanRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan's bytes and how it was built; `reason` says why it was built just now, None where it was there."""

    path: Path
    content: bytes
    record: PlanRecord
    reason: str | None


def ensure(source: Bundle, precision: Precision, library: Library, options: BuildOptions | None = None) -> Plan:
    """The plan of an executable for this machine: the one beside its network where it fits, else a new one there.

    `options` None takes those of the plan that does not fit, or the defaults. Raises BundleError for a damaged record,
    BackendError where it cannot be built.
    """
    path, network_sha256 = plan_path(source, precision), source.executable(precision).network.sha256
    old = _find(path)
    if isinstance(old, str):
        return rebuild(source, precision, library, options or BuildOptions(), old)
    reason = _misfit(old.record, network_sha256, library, gpu(), options)
    if reason is None:
        return old
    return rebuild(source, precision, library, options or old.record.options, reason)


def rebuild(source: Bundle, precision: Precision, library: Library, options: BuildOptions, reason: str) -> Plan:
    """Build the plan of an executable and keep it beside the network; says why in one line of the log."""
    network, path = source.file(source.executable(precision).network), plan_path(source, precision)
    log.info("%s: building %s, because %s", source.manifest.model, path.name, reason)
    content = build(library, network, options)
    made = _record(library, gpu(), precision, options, source.executable(precision).network.sha256, content)
    _keep(path, content, made)
    return Plan(path, content, made, reason)


def plan_path(source: Bundle, precision: Precision) -> Path:
    """Where the plan of an executable lies: beside its network."""
    return source.file(source.executable(precision).network).with_suffix(".plan")


def _find(path: Path) -> Plan | str:
    """The plan that lies there, or why it is of no use anywhere."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "there is none"
    record = records.read(path)
    if record is None:
        return "the one there has no build record"
    if hashlib.sha256(content).hexdigest() != record.plan_sha256:
        return "the one there is damaged (its SHA-256 is not the record's)"
    return Plan(path, content, record, None)


def _misfit(
    record: PlanRecord, network_sha256: str, library: Library, device: Gpu | None, options: BuildOptions | None
) -> str | None:
    """Why a plan is of no use for this network, machine and these options; None where it fits."""
    if options is not None and options != record.options:
        return "it was built with other options"
    return records.misfit(
        record, network_sha256=network_sha256, builder=library.name, builder_version=library.version, gpu=device
    )


def _record(
    library: Library,
    device: Gpu | None,
    precision: Precision,
    options: BuildOptions,
    network_sha256: str,
    content: bytes,
) -> PlanRecord:
    profile = options.profile
    return PlanRecord(
        builder=library.name,
        builder_version=library.version,
        device=None if device is None else device.name,
        capability=None if device is None else device.capability,
        precision=precision,
        batch=(profile.least, profile.best, profile.most),
        version_compatible=options.version_compatible,
        network_sha256=network_sha256,
        plan_sha256=hashlib.sha256(content).hexdigest(),
    )


def _keep(path: Path, content: bytes, made: PlanRecord) -> None:
    """Write plan and record; where the folder cannot be written, the plan serves this process only."""
    try:
        new = path.with_name(f"{path.name}.{os.getpid()}")  # another process may be at the same plan
        new.write_bytes(content)
        new.replace(path)
        records.write(path, made)
    except OSError as error:
        log.warning(
            "%s: the plan cannot be kept (%s) and is built at every start; make the folder writable", path, error
        )
