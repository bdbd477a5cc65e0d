"""`export.json`: what lies beside an exported network, for whoever runs it without this engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import onnxruntime as ort

from engine import __version__, bundle
from engine.bundle import Bundle
from engine.contract import Calibration, File, Input, Precision, Struct, Tiling
from engine.export.base import RECORD_NAME

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}


class Tensor(Struct, frozen=True):
    """An input or output of the network; `N`, the batch, is any number of pictures from 1 on."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Agreement(Struct, frozen=True):
    """The largest differences from ONNX Runtime over `n_images`, relative to its largest value."""

    n_images: int
    score: float
    map: float


class Record(Struct, frozen=True):
    """The content of `export.json`.

    `input` says which picture the model takes: the network, or with a `tiling` its tiles (`engine.tiling`). `gaussian`
    names the file of its per-position model (none where the network gives distances itself), `grid` and
    `smoothing_sigma_px` how distances become a map; `calibration` the raw scores' thresholds. `agreement` is None where
    the export was not run.
    """

    target: str
    model: str
    method: str
    precision: Precision
    input: Input
    tensors: dict[str, tuple[Tensor, ...]]  # "inputs", "outputs"
    files: tuple[File, ...]
    gaussian: str | None
    grid: tuple[int, int]
    smoothing_sigma_px: float
    calibration: Calibration
    agreement: Agreement | None
    versions: dict[str, str]
    tiling: Tiling | None = None


def record(
    target: str,
    source: Bundle,
    precision: Precision,
    folder: Path,
    agreement: Agreement | None,
    made_by: Mapping[str, str],
) -> Record:
    """The record of an executable whose files lie in `folder`; `made_by` are the versions of the libraries used."""
    manifest, executable = source.manifest, source.executable(precision)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Record(
        target=target,
        model=manifest.model,
        method=manifest.method,
        precision=precision,
        input=manifest.input,
        tensors=tensors(source.file(executable.network)),
        files=tuple(bundle.describe(path, folder) for path in paths),
        gaussian=None if executable.gaussian is None else executable.gaussian.path,
        grid=manifest.grid,
        smoothing_sigma_px=manifest.smoothing_sigma_px,
        calibration=executable.calibration,
        agreement=agreement,
        versions={"anomaly-engine": __version__, **made_by},
        tiling=manifest.tiling,
    )


def write(folder: Path, made: Record) -> None:
    """Write `export.json` into a folder whose other files are complete."""
    (folder / RECORD_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")


def tensors(network: Path) -> dict[str, tuple[Tensor, ...]]:
    """The inputs and outputs of an ONNX file."""
    session = ort.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    nodes = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        kind: tuple(Tensor(node.name, _DTYPES.get(node.type, node.type), ("N", *node.shape[1:])) for node in found)
        for kind, found in nodes.items()
    }
