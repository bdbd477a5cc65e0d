"""`--target openvino`: an executable as OpenVINO's own files, checked against ONNX Runtime."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import BackendError, MissingExtraError
from engine.export import agreement, record
from engine.export.base import RECORD_NAME, ExportOptions, writing
from engine.export.onnx import copy_gaussian
from engine.serving.detector import Detector
from engine.serving.openvino import OpenvinoNetwork

NETWORK = "network.xml"  # with its weights in network.bin
_PACKAGE = "openvino"


class OpenvinoTarget:
    """The target `openvino`."""

    name = "openvino"
    takes: frozenset[str] = frozenset()

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """See `Target.export`."""
        source, precision = options.bundle, options.precision
        executable = source.executable(precision)
        with writing(options.out) as folder:
            convert(source.file(executable.network), folder / NETWORK)
            copy_gaussian(source, precision, folder)
            found = self._agreement(options, folder)
            agreement.require(found, precision, options.out)
            versions = {_PACKAGE: metadata.version(_PACKAGE)}
            made = record.record(self.name, source, precision, folder, found, versions)
            record.write(folder, made)
        usage = f"{NETWORK} runs on OpenVINO; {RECORD_NAME} says how"
        return {"out": str(options.out), **msgspec.to_builtins(made), "next": usage}

    def _agreement(self, options: ExportOptions, folder: Path) -> record.Agreement:
        """What was written, run on the CPU."""
        precision = options.precision
        detector = Detector(options.bundle, precision, OpenvinoNetwork(folder / NETWORK, threads=0))
        found = agreement.compare(detector, options.bundle, precision, agreement.noise(options.bundle))
        detector.close()
        return found


def convert(network: Path, out: Path) -> None:
    """An ONNX file as OpenVINO's pair of files, weights as they are; raises MissingExtraError or BackendError."""
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("`engine export --target openvino`", "openvino") from None
    try:
        model = openvino.convert_model(network)
    except Exception as error:  # OpenVINO raises RuntimeError and its own types; this is the edge
        raise BackendError(f"{network}: OpenVINO {openvino.__version__} cannot convert it: {error}") from error
    try:
        openvino.save_model(model, out, compress_to_fp16=False)
    except Exception as error:  # likewise; of a full disk it says "iostream error"
        free_mib = shutil.disk_usage(out.parent).free >> 20
        raise BackendError(f"{out}: OpenVINO cannot write it ({free_mib} MiB are free): {error}") from error
