"""How fast is the detector beside anomalib's PaDiM of the same size, both on the CPU, in one run?

Both: ResNet-18 with random weights (speed does not depend on them), 100 feature channels, 256 px, the same pictures,
threads and batch sizes; resize, network, Mahalanobis map, smoothing and score included. anomalib runs its own OpenVINO
inferencer on its own export, as it comes and in float32 (OpenVINO may pick bfloat16 by itself). Ours runs the default
grid (one position per 8 px) and the peer's finer one (4 px), in float32 and in the int8 that every bundle carries.
Segments alternate, so that noise hits all alike.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import like_for_like
from benchmarks.harness import Answer, Context, Document, elpv
from engine.bench.environment import stamp
from engine.bench.offline import backend_worker
from engine.bench.pictures import prepare
from engine.bench.report import Setup
from engine.bench.worker import Worker
from engine.bundle import Bundle
from engine.config import Runtime
from engine.contract import Precision
from engine.errors import UsageError
from engine.serving.select import choose_backend

QUESTION = "anomalib_padim"
BATCHES = (1, 8)
ROUNDS = 8
SEGMENT_S = 3.0
_PEER = Path(__file__).parent / "anomalib"
_STRIDES_PX = (8, 4)
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_THEIRS = {"anomalib": "default", "anomalib, float32": "f32"}


def answer(context: Context) -> Answer:
    """Train ours, export theirs, then measure all of them in turn."""
    data = context.data[0] if context.data else elpv(context, "mono").path
    ours = {stride: like_for_like.bundle(context, data, stride) for stride in _STRIDES_PX}
    model = _export(context, data / "train")
    folder = context.folder("anomalib-pictures")
    pictures = prepare(data, next(iter(ours.values())).manifest, folder)
    environment = stamp()
    rates = {str(batch): _measure(context, ours, model, folder, batch) for batch in BATCHES}
    document: Document = {"pictures": pictures.describe(), "rounds": ROUNDS, "segment_s": SEGMENT_S, "batches": rates}
    return Answer(QUESTION, document, environment)


def _export(context: Context, pictures: Path) -> Path:
    """The peer's model, fitted on the same training pictures and exported by its own code."""
    folder = context.folder("anomalib-padim")
    command = [_python(context), str(_PEER / "export.py"), str(pictures.resolve()), str(folder.resolve())]
    subprocess.run(command, stdout=sys.stderr, cwd=folder, check=True)
    return folder / "weights" / "openvino" / "model.xml"


def _measure(context: Context, bundles: Mapping[int, Bundle], model: Path, folder: Path, batch: int) -> Document:
    """Frames/s of every contender, round by round; `bundles` by their grid's stride in pixels."""
    ours = {f"ours, {px} px grid, {precision}": (px, precision) for px in bundles for precision in _PRECISIONS}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(_our_worker(context, bundles[px], precision, folder, batch))
            for name, (px, precision) in ours.items()
        }
        for name, precision in _THEIRS.items():
            workers[name] = stack.enter_context(_their_worker(context, model, folder, batch, precision))
        rounds = [
            {name: worker.measure(seconds=SEGMENT_S)["fps"] for name, worker in workers.items()} for _ in range(ROUNDS)
        ]
    return {
        "fps": {name: median(each[name] for each in rounds) for name in workers},
        "ratio": {name: median(each[name] / max(each[t] for t in _THEIRS) for each in rounds) for name in ours},
        "rounds": rounds,
    }


def _our_worker(context: Context, bundle: Bundle, precision: Precision, folder: Path, batch: int) -> Worker:
    runtime = Runtime(precision=precision, threads=context.threads)
    backend = choose_backend(bundle, runtime, batch).backend
    return backend_worker(bundle, folder, Setup(backend, precision, batch, context.threads))


def _their_worker(context: Context, model: Path, folder: Path, batch: int, precision: str) -> Worker:
    arguments = [str(model.resolve()), str(folder.resolve()), str(batch), str(context.threads), precision]
    return Worker([_python(context), str(_PEER / "worker.py"), *arguments], context.work)


def _python(context: Context) -> str:
    """The peer's interpreter."""
    if context.anomalib is None or not (context.anomalib / "bin" / "python").exists():
        raise UsageError(
            f"{QUESTION}: --anomalib: expected the peer's environment, got {context.anomalib}; "
            f"make it with: sh {_PEER}/setup.sh VENV"
        )
    return str((context.anomalib / "bin" / "python").absolute())


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        "| frames/s | " + " | ".join(f"batch {batch}" for batch in document["batches"]) + " |",
        "|---" * (len(document["batches"]) + 1) + "|",
    ]
    names = next(iter(document["batches"].values()))["fps"]
    for name in names:
        cells = []
        for found in document["batches"].values():
            ratio = f" ({found['ratio'][name]:.1f} x)" if name in found["ratio"] else ""
            cells.append(f"{found['fps'][name]:.1f}{ratio}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
