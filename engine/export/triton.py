"""`--target triton`: a model repository, or a new version in one; a server that runs on it serves it at once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.contract import File
from engine.errors import UsageError
from engine.export import record
from engine.export.base import ExportOptions
from engine.triton.models import Names
from engine.triton.pbtxt import Tensor
from engine.triton.publish import publish
from engine.triton.repository import Fill, Repository
from engine.triton.served import Served

SOURCE = Path(__file__).parents[2] / "model_repository"
_MODEL = "model.py"


class TritonTarget:
    """The target `triton`."""

    name = "triton"

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """See `Target.export`."""
        bundle = options.bundle
        version = served(options)
        repository = Repository(options.out)
        done = publish(repository, version, fills(bundle, version))
        files = [path for name in repository.models() for path in sorted((repository.path / name).rglob("*"))]
        run = "served from now on" if done.loaded else f"engine triton up {options.out}"
        return {
            "out": str(options.out),
            "target": self.name,
            "model": done.model,
            "version": done.version,
            "precision": options.precision,
            "loaded": done.loaded,
            "files": [_described(path, repository.path) for path in files if path.is_file()],
            "next": run,
        }


def served(options: ExportOptions) -> Served:
    """What the repository says of the bundle."""
    manifest = options.bundle.manifest
    executable = options.bundle.executable(options.precision)
    tensors = record.tensors(options.bundle.file(executable.network))["outputs"]
    outputs = tuple(Tensor(tensor.name, "TYPE_FP32", _dims(tensor)) for tensor in tensors)
    return Served(manifest, options.precision, "cpu", outputs)


def fills(bundle: Bundle, version: Served) -> Mapping[str, Fill]:
    """How the folders of the models are filled: the python-backend models of this project, and the bundle's files."""
    names, executable = Names.of(version), version.executable
    gaussian = () if executable.gaussian is None else (executable.gaussian,)
    return {
        names.network: _filling(bundle, "network", (executable.network, *executable.data)),
        names.map: _filling(bundle, "map", gaussian),
        names.decision: _filling(bundle, "decision", ()),
    }


def _filling(bundle: Bundle, source: str, files: tuple[File, ...]) -> Fill:
    def fill(folder: Path) -> None:
        shutil.copyfile(SOURCE / source / "1" / _MODEL, folder / _MODEL)
        for file in files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.file(file), folder / file.path)

    return fill


def _dims(tensor: record.Tensor) -> tuple[int, ...]:
    sizes = tensor.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise UsageError(f"the network's output {tensor.name} has shape {tensor.shape}, expected sizes; train it again")
    return tuple(int(size) for size in sizes)


def _described(path: Path, folder: Path) -> dict[str, Any]:
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": bundles.sha256(path)}
