"""The kernels' sources, which the package carries."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "csrc" / "cuda"
MAIN = "kernels.cu"
LIBRARY = "launch.cu"


def headers() -> dict[str, str]:
    """Every header, under the name by which the sources include it."""
    near = {path.name: path for path in (*FOLDER.glob("*.cuh"), FOLDER / "plan.hpp")}
    far = {f"../{path.name}": path for path in FOLDER.parent.glob("*.hpp")}
    return {name: path.read_text() for name, path in sorted((near | far).items())}


@cache
def digest() -> str:
    """A name for this state of the sources."""
    texts = [(FOLDER / MAIN).read_text(), *(f"{name}\n{text}" for name, text in headers().items())]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
