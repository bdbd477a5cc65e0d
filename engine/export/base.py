"""The seam between the command line and a target: what it is asked for, what it hands back.

Adding a target: write a file here with a class that satisfies `Target` and name it in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine import folders
from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import UsageError

RECORD_NAME = "export.json"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `engine export` was asked for; `out` is the folder to write."""

    bundle: Bundle
    out: Path
    precision: Precision = "fp32"


class Target(Protocol):
    """One kind of export."""

    name: str

    def export(self, options: ExportOptions) -> dict[str, Any]:
        """Write `options.out`; returns the document of `engine export --json`, with a key `next`: what to do with it.

        Raises UsageError (or a kind of it) for anything a person can put right, BackendError where a runtime fails.
        """


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
