"""A folder that appears whole or not at all, in the place of an older one of its kind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replaceable(target: Path, marker: str) -> bool:
    """Whether nothing is in the way but an empty folder, or one of the same kind: with a file named `marker`."""
    if not target.exists() or (target / marker).is_file():
        return True
    return target.is_dir() and not any(target.iterdir())


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A scratch folder beside `target` that takes its place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        _replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace(scratch: Path, target: Path) -> None:
    """Put `scratch` in the place of `target`; the old folder stays whole until the new one is complete."""
    if not target.exists():
        os.rename(scratch, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    os.rename(target, old / "folder")
    os.rename(scratch, target)
    shutil.rmtree(old)
