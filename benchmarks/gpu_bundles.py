"""The detectors that gpu.sh times: `python -m benchmarks.gpu_bundles --out FOLDER`, on a machine without a GPU.

One default detector on the demo's solar cells, in every precision that TensorRT takes. Its plans are those of
TensorRT-RTX; a machine with another TensorRT builds its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

from benchmarks.harness import Context, elpv, engine, trained
from engine.contract import Precision


def make(out: Path, work: Path) -> list[Path]:
    """Train, and export a bundle per precision."""
    data = elpv(Context(work), "mono")
    bundle, _ = trained(Context(work), data)
    made = []
    for precision in get_args(Precision):
        folder = out / f"{data.name}-{precision}"
        engine("export", bundle, "--target", "tensorrt", "--precision", precision, "--out", folder)
        made.append(folder)
    return made


def main(given: list[str]) -> int:
    """Make them and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_bundles", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".bundles"), help="the folder to write (default: .bundles)")
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as work:
        for folder in make(options.out, Path(work)):
            print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
