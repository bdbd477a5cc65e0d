"""`--target tensorrt`: a bundle of one executable, with its plan and the plan's build record beside the network.

It is a bundle like any other: `engine serve` and `engine eval` take it, on a GPU by its plan, elsewhere by its ONNX
file. Its float32 executable is the source's. In float16 and int8 networks and thresholds are made for TensorRT.
"""

from __future__ import annotations

import logging
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
            plan = store.ensure(made, options.precision, found, wanted)
            measured = check(made, options.precision, options.out)
            files = [bundles.describe(path, folder) for path in sorted(folder.iterdir())]
        return _document(options, made.manifest, plan, measured, files)


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
    detector = serving.open_detector(made, precision)
    measured = agreement.compare(detector, made, precision, agreement.noise(made))
    detector.close()
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
    have = source.manifest.executables
    if precision != "fp32" and "fp32" in have:
        return msgspec.structs.replace(options.recalibrate(source, precision, options.data, folder), weights=None)
    its = source.executable(precision)
    copy(source, folder, its.network, *its.data, *([its.reference] if its.reference is not None else []))
    copy_gaussian(source, precision, folder)
    executable = msgspec.structs.replace(its, held_out=None)
    return msgspec.structs.replace(source.manifest, executables={precision: executable}, weights=None)


def _document(
    options: ExportOptions, manifest: Manifest, plan: Plan, measured: Agreement | None, files: list[File]
) -> dict[str, Any]:
    calibration = manifest.executables[options.precision].calibration
    usage = f"engine serve --line NAME={options.out} --backend tensorrt --precision {options.precision}"
    return {
        "out": str(options.out),
        "target": TensorrtTarget.name,
        "model": manifest.model,
        "method": manifest.method,
        "precision": options.precision,
        "plan": plan.path.name,
        "build": msgspec.to_builtins(plan.record),
        "calibration": msgspec.to_builtins(calibration),
        "agreement": msgspec.to_builtins(measured),
        "files": msgspec.to_builtins(files),
        "next": usage,
    }
