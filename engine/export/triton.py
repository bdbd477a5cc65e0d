"""`--target triton`: a model repository, or a new version in one; a server that runs on it serves it at once."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.contract import DETECTOR_MODEL, File, Precision
from engine.errors import BackendError, UsageError
from engine.export import record
from engine.export.base import ExportOptions, refuse_tiled
from engine.plans import library
from engine.plans.build import BuildOptions, Profile, build
from engine.triton.models import MAX_BATCH, Names
from engine.triton.pbtxt import DataType, Tensor
from engine.triton.publish import publish
from engine.triton.repository import Fill, Repository
from engine.triton.served import Flavour, Served

SOURCE = Path(__file__).parents[2] / "model_repository"
_MODEL, _PLAN = "model.py", "model.plan"
_TYPES: Mapping[str, DataType] = {"float32": "TYPE_FP32", "float16": "TYPE_FP16"}


class TritonTarget:
    """The target `triton`."""

    name = "triton"
    takes = frozenset({"device"})

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """See `Target.export`."""
        refuse_tiled(options.bundle, self.name)
        version = served(options)
        repository = Repository(options.out)
        done = publish(repository, version, fills(options.bundle, version))
        files = [path for name in repository.models() for path in sorted((repository.path / name).rglob("*"))]
        return {
            "out": str(options.out),
            "target": self.name,
            "model": done.model,
            "version": done.version,
            "precision": options.precision,
            "device": version.flavour,
            "loaded": done.loaded,
            "files": [_described(path, repository.path) for path in files if path.is_file()],
            "next": "it is served from now on" if done.loaded else f"engine triton up {shlex.quote(str(options.out))}",
        }


def served(options: ExportOptions) -> Served:
    """What the repository says of the bundle."""
    bundle, precision, flavour = options.bundle, options.precision, options.device or "cpu"
    if not bundle.members:
        return _served_model(bundle, bundle.manifest.method, precision, flavour)
    names = [member.name for member in bundle.ensemble(precision).members]
    if DETECTOR_MODEL in names:
        raise UsageError(f"{bundle.path}: a member is called {DETECTOR_MODEL}, as the whole is in Triton; fuse it anew")
    members = tuple(_served_model(bundle.members[name], name, precision, flavour) for name in names)
    return Served(bundle.manifest, precision, flavour, members=members)


def fills(bundle: Bundle, version: Served) -> Mapping[str, Fill]:
    """How the folders of the models are filled: the python-backend models of this project, and the bundle's files.

    Raises UsageError for a GPU where the TensorRT is missing whose plans Triton loads.
    """
    names = Names.of(version)
    decision = {names.decision: _copying(bundle, version, "decision", ())}
    if not version.members:
        return decision | _raw_fills(bundle, version)
    found = decision | {names.fusion: _copying(bundle, version, "fusion", ())}
    for member in version.members:
        found[names.resized(member.size)] = _copying(bundle, version, "resize", ())
        found |= _raw_fills(bundle.members[member.name], member)
    return found


def _served_model(bundle: Bundle, name: str, precision: Precision, flavour: Flavour) -> Served:
    tensors = record.tensors(bundle.file(bundle.executable(precision).network))["outputs"]
    outputs = tuple(Tensor(tensor.name, _TYPES[tensor.dtype], _dims(tensor)) for tensor in tensors)
    return Served(bundle.manifest, precision, flavour, name, outputs)


def _raw_fills(bundle: Bundle, version: Served) -> dict[str, Fill]:
    names, executable = Names.of(version), version.executable
    gaussian = () if executable.gaussian is None else (executable.gaussian,)
    if version.flavour == "gpu":
        return {names.network: _building(bundle, version), names.map: _copying(bundle, version, "map", gaussian)}
    return {names.member: _copying(bundle, version, "member", (executable.network, *executable.data, *gaussian))}


def _copying(bundle: Bundle, version: Served, source: str, files: tuple[File, ...]) -> Fill:
    def fill(folder: Path) -> None:
        version.write(folder)
        shutil.copyfile(SOURCE / source / "1" / _MODEL, folder / _MODEL)
        for file in files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.file(file), folder / file.path)

    return fill


def _building(bundle: Bundle, version: Served) -> Fill:
    try:
        full = library.find("tensorrt")
    except BackendError as error:
        raise UsageError(
            f"--device gpu: needs full TensorRT, because Triton does not load the plans of TensorRT-RTX ({error}); "
            f"or export for the CPU"
        ) from error
    options = BuildOptions(Profile(most=MAX_BATCH))

    def fill(folder: Path) -> None:
        version.write(folder)
        (folder / _PLAN).write_bytes(build(full, bundle.file(version.executable.network), options))

    return fill


def _dims(tensor: record.Tensor) -> tuple[int, ...]:
    sizes = tensor.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise UsageError(f"the network's output {tensor.name} has shape {tensor.shape}, expected sizes; train it again")
    return tuple(int(size) for size in sizes)


def _described(path: Path, folder: Path) -> dict[str, Any]:
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": bundles.sha256(path)}
