"""A model as one safetensors file: arrays, and a JSON of facts in the header. Nothing is ever unpickled.

16-bit factors lie there as U16: their bits, which any reader can hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kernels.errors import KernelError, ModelFileError
from kernels.storage import Storage, Stored, check, empty

FORMAT = "mahalanobis-gaussian"
VERSION = 1

_PIECE = 256  # positions


def write(path: Path, arrays: dict[str, Any], facts: dict[str, object]) -> None:
    """Write arrays and facts; the same ones give the same bytes."""
    header = {"format": FORMAT, "version": str(VERSION), "facts": json.dumps(facts)}
    save_file(arrays, path, metadata=header)
    _sort_header(path)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and facts of a file that `write` made; raises ModelFileError for any other."""
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file; make one with Gaussian.save")
    with checking(path), safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        kind, version = header.get("format"), header.get("version")
        if (kind, version) != (FORMAT, str(VERSION)):
            raise ModelFileError(
                f"{path}: expected format {FORMAT} version {VERSION}, got {kind} version {version}; fit the model again"
            )
        facts = json.loads(header["facts"])
        arrays = {name: file.get_tensor(name) for name in file.keys() if name != "factor"}  # noqa: SIM118
        return arrays | {"factor": _factor(file, check(facts["storage"]))}, facts


def _sort_header(path: Path) -> None:
    """Put the header's keys in order in place: safetensors writes its metadata in a different one each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        file.seek(8)
        file.write(json.dumps(header, sort_keys=True, separators=(",", ":")).encode().ljust(size))


def _factor(file: Any, storage: Storage) -> Stored:
    """The factor, copied piece by piece to memory aligned for the kernel."""
    stored = file.get_slice("factor")
    factor = empty(tuple(stored.get_shape()), storage)
    for first in range(0, len(factor), _PIECE):
        last = min(first + _PIECE, len(factor))  # safetensors refuses slices that reach past the end
        factor[first:last] = stored[first:last]
    return factor


@contextmanager
def checking(path: Path) -> Iterator[None]:
    """Errors of a damaged or foreign file, as ModelFileError."""
    try:
        yield
    except (SafetensorError, KernelError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{path}: not a readable model ({error}); copy the file again, or fit the model again"
        ) from error
