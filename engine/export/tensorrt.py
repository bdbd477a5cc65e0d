"""`--target tensorrt`: a bundle of one executable, with its plan and the plan's build record beside the network.

It is a bundle like any other: `engine serve` and `engine eval` take it, on a GPU by its plan, elsewhere by its ONNX
file. Its float32 executable is the source's. In float16 and int8 networks and thresholds are made for TensorRT. Of an
ensemble every member is such a bundle.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.contract import File, Manifest, Precision
from engine.errors import UsageError
from engine.export import agreement
from engine.export.base import ExportOptions, refuse_tiled
from engine.export.onnx import copy, copy_gaussian
from engine.export.record import Agreement
from engine.plans import library, store
from engine.plans.build import BuildOptions, Profile
from engine.plans.store import Plan
from engine.serving import tensorrt as serving
from engine.serving.select import open_local

log = logging.getLogger(__name__)


class TensorrtTarget:
    """The target `tensorrt`."""

    name = "tensorrt"
    takes = frozenset({"data", "batch", "version_compatible"})

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """See `Target.export`."""
        refuse_tiled(options.bundle, self.name)
        found, wanted = library.find(), build_options(options)
        with bundles.writing(options.out) as folder:
            bundles.write_manifest(folder, _manifest(options, folder))
            made = bundles.read(folder)
            models = made.members or {made.manifest.method: made}
            plans = {name: store.ensure(model, options.precision, found, wanted) for name, model in models.items()}
            measured = check(made, options.precision, options.out)
            files = [bundles.describe(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        return _document(options, made, plans, measured, files)


def build_options(options: ExportOptions) -> BuildOptions:
    """What the command line says of the plan; raises UsageError for a batch that is none."""
    profile = Profile() if options.batch is None else _profile(options.batch)
    return BuildOptions(profile, options.version_compatible)


def check(made: Bundle, precision: Precision, out: Path) -> Agreement | None:
    """The plan's scores against ONNX Runtime's, where it can run; raises BackendError where they differ.

    `out` is where the bundle will lie, for messages.
    """
    if (why := serving.why_not()) is not None:
        log.warning("%s: the plan was built but not run here, so its scores are not checked (%s)", out, why)
        return None
    predictor = open_local(made, "tensorrt", precision, threads=0)
    measured = agreement.compare(predictor, made, precision, agreement.noise(made))
    predictor.close()
    agreement.require(measured, precision, out)
    return measured


def _profile(text: str) -> Profile:
    try:
        least, best, most = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--batch: expected LEAST,BEST,MOST, got {text!r}") from None
    return Profile(least, best, most)


def _manifest(options: ExportOptions, folder: Path) -> Manifest:
    """Write the executable's files; a bundle that has float32 gives the others from it, another what it has.

    What only trainers read (weights to learn on from, or to explain by) stays in the source.
    """
    source, precision = options.bundle, options.precision
    if source.members:
        return _of_members(options, folder)
    have = source.manifest.executables
    if precision != "fp32" and "fp32" in have:
        return msgspec.structs.replace(options.recalibrate(source, precision, options.data, folder), weights=None)
    its = source.executable(precision)
    copy(source, folder, its.network, *its.data, *([its.reference] if its.reference is not None else []))
    copy_gaussian(source, precision, folder)
    executable = msgspec.structs.replace(its, held_out=None)
    return msgspec.structs.replace(source.manifest, executables={precision: executable}, weights=None)


def _of_members(options: ExportOptions, folder: Path) -> Manifest:
    """Write the files of an ensemble; raises UsageError for a precision whose thresholds would have to be set again."""
    source, precision = options.bundle, options.precision
    if precision != "fp32":
        raise UsageError(
            f"--precision {precision}: {source.path} is an ensemble, and those are exported in fp32: thresholds in "
            f"{precision} would have to be set again for all members together; export one of {source.path}/members"
        )
    spec = source.ensemble(precision)
    copy(source, folder, spec.frames, *(member.network for member in spec.members if member.network is not None))
    members = []
    for member in spec.members:
        path, own = folder / member.manifest.path, replace(options, bundle=source.members[member.name])
        path.parent.mkdir(parents=True)
        bundles.write_manifest(path.parent, _manifest(own, path.parent))
        members.append(msgspec.structs.replace(member, manifest=bundles.describe(path, folder)))
    ensembles = {precision: msgspec.structs.replace(spec, members=tuple(members))}
    return msgspec.structs.replace(source.manifest, ensembles=ensembles)


def _document(
    options: ExportOptions, made: Bundle, plans: Mapping[str, Plan], measured: Agreement | None, files: list[File]
) -> dict[str, Any]:
    """`plan` and `build` of one model; of an ensemble these of each member, under `members`."""
    built = {name: {"plan": plan.path.name, "build": msgspec.to_builtins(plan.record)} for name, plan in plans.items()}
    line = f"NAME={shlex.quote(str(options.out))}"
    usage = f"engine serve --line {line} --backend tensorrt --precision {options.precision}"
    return {
        "out": str(options.out),
        "target": TensorrtTarget.name,
        "model": made.manifest.model,
        "method": made.manifest.method,
        "precision": options.precision,
        **({"members": built} if made.members else built[made.manifest.method]),
        "calibration": msgspec.to_builtins(made.calibration(options.precision)),
        "agreement": msgspec.to_builtins(measured),
        "files": msgspec.to_builtins(files),
        "next": usage,
    }
