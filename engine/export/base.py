"""The seam between the command line and a target: what it is asked for, what it hands back.

Adding a target: write a file here with a class that satisfies `Target` and name it in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from engine import folders
from engine.bundle import Bundle
from engine.contract import Manifest, Precision
from engine.errors import UsageError

RECORD_NAME = "export.json"

# Writes the executable of a precision into a folder, made from a bundle's float32 one and calibrated on its training
# pictures (None: where the bundle says they are); returns the manifest of a bundle that has only this executable.
Recalibrate = Callable[[Bundle, Precision, Path | None, Path], Manifest]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `engine export` was asked for; `out` is the folder to write.

    The options from `data` on are of some targets only, see `Target.takes`; None leaves them to the target. `batch` is
    LEAST,BEST,MOST. `recalibrate` is the training half of the project, loaded when it is called.
    """

    bundle: Bundle
    out: Path
    recalibrate: Recalibrate
    precision: Precision = "fp32"
    data: Path | None = None
    batch: str | None = None
    version_compatible: bool = False
    device: Literal["cpu", "gpu"] | None = None


OF_SOME = frozenset({"data", "batch", "version_compatible", "device"})


class Target(Protocol):
    """One kind of export; `takes` names the options that it has and not every target."""

    name: str
    takes: frozenset[str]

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """Write `options.out`; returns the document of `engine export --json`, with a key `next`: what to do with it.

        Raises UsageError (or a kind of it) for anything a person can put right, BackendError where a runtime fails.
        """


def refuse_others(options: ExportOptions, target: Target) -> None:
    """Raise UsageError for an option that another target has."""
    for name in sorted(OF_SOME - target.takes):
        if getattr(options, name) not in (None, False):
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: not an option of --target {target.name}")


def refuse_tiled(source: Bundle, target: str) -> None:
    """Raise UsageError for a tiled bundle where a target takes whole pictures only."""
    if source.tiled:
        raise UsageError(
            f"--target {target}: {source.path} is tiled, and the target takes bundles of whole pictures only; serve it "
            f"in-process, export --target onnx or openvino, or train one without --tile"
        )


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """A scratch folder that becomes the export `out` when the block ends without an error.

    Raises UsageError when `out` exists and is not an export, so that no other folder is ever replaced.
    """
    target = out.resolve()
    if not folders.replaceable(target, RECORD_NAME):
        raise UsageError(
            f"{target}: exists and is not an export (it has no {RECORD_NAME}); choose another --out, or remove it first"
        )
    with folders.appearing(target) as scratch:
        yield scratch
