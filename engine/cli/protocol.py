"""`engine protocol`: a paper's evaluation protocol, which trains several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def protocol(
    name: Annotated[str, typer.Argument()],
    data: Annotated[Path, typer.Argument()],
) -> None:
    """A paper's evaluation protocol."""
