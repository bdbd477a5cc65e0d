"""`--target onnx`: an executable's files as they are, and what whoever runs them has to know."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from engine.bundle import Bundle
from engine.contract import File, Precision
from engine.export import record
from engine.export.base import RECORD_NAME, ExportOptions, writing

_PACKAGE = "onnxruntime"


class OnnxTarget:
    """The target `onnx`."""

    name = "onnx"
    takes: frozenset[str] = frozenset()

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """See `Target.export`."""
        source, precision = options.bundle, options.precision
        executable = source.executable(precision)
        with writing(options.out) as folder:
            copy(source, folder, executable.network, *executable.data)
            copy_gaussian(source, precision, folder)
            versions = {_PACKAGE: metadata.version(_PACKAGE)}
            made = record.record(self.name, source, precision, folder, None, versions)
            record.write(folder, made)
        usage = f"{executable.network.path} runs on any ONNX runtime; {RECORD_NAME} says how"
        return {"out": str(options.out), **msgspec.to_builtins(made), "next": usage}


def copy(source: Bundle, folder: Path, *files: File) -> None:
    """Copy files of a bundle to the same places below `folder`."""
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.file(file), target)


def copy_gaussian(source: Bundle, precision: Precision, folder: Path) -> None:
    """Copy the per-position model of an executable, where it has one."""
    gaussian = source.executable(precision).gaussian
    if gaussian is not None:
        copy(source, folder, gaussian)
