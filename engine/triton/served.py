"""What a repository keeps of a bundle that it serves: `served.json`, beside the files of each of its models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from engine.contract import Calibration, Ensemble, Executable, Manifest, Precision, Struct
from engine.errors import UsageError
from engine.triton.pbtxt import Tensor

SERVED_NAME = "served.json"
FORMAT = 2  # of what the models of a repository consist of: another one gives the same bundle other names
_TAG_DIGITS = 12

Flavour = Literal["cpu", "gpu"]
Size = tuple[int, int]


class Served(Struct, frozen=True):
    """One precision of a bundle, for CPUs (networks as ONNX) or GPUs (as TensorRT plans).

    `name` is the member's model; `outputs` are those of its network. An ensemble has `members` instead, in the order of
    its manifest, and no network of its own.
    """

    manifest: Manifest
    precision: Precision
    flavour: Flavour
    name: str = ""
    outputs: tuple[Tensor, ...] = ()
    members: tuple[Served, ...] = ()

    @property
    def size(self) -> Size:
        """(height, width) px of its pictures and maps."""
        return self.manifest.input.height, self.manifest.input.width

    @property
    def executable(self) -> Executable:
        """The executable of its precision, of one model."""
        return self.manifest.executables[self.precision]

    @property
    def ensemble(self) -> Ensemble:
        """The ensemble of its precision."""
        return self.manifest.ensembles[self.precision]

    @property
    def calibration(self) -> Calibration:
        """The thresholds of its precision."""
        return (self.ensemble if self.members else self.executable).calibration

    @property
    def tag(self) -> str:
        """See `tag`."""
        return tag(self.manifest, self.precision, self.flavour)

    def write(self, folder: Path) -> None:
        """Write `served.json`."""
        (folder / SERVED_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def tag(manifest: Manifest, precision: Precision, flavour: Flavour) -> str:
    """A digest of all that shapes what is served of a bundle: models with the same tag are the same."""
    maps = (manifest.input, manifest.grid, manifest.smoothing_sigma_px)
    of = manifest.ensembles.get(precision) or manifest.executables[precision]
    what = (FORMAT, manifest.model, manifest.method, maps, of, precision, flavour)
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()[:_TAG_DIGITS]


def read(folder: Path) -> Served:
    """Read `served.json`; raises UsageError where it is missing or no such document."""
    path = folder / SERVED_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Served)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"{path}: not written by this version of the engine ({error}); export into a new folder"
        ) from error
