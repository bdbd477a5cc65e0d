"""How well do the methods that learn a network tell defective pictures from good ones, and what do they cost?

    python -m benchmarks.methods --data FOLDER... [--variant NAME...] [--seed N...] [--epochs N]

A run takes minutes to an hour, so the results grow: a run that they have is not made again, each new one is written at
once, and each tells the machine it was made on. Training and judging are commands of the engine, each in a process of
its own; the system tells its peak memory and its CPU time, which hardly depends on what else the machine does. What is
taken of the bundles in the work folder comes last: the AUROC by synthetic defects, and speeds, one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.criterion import criterion
from benchmarks.harness import RESULTS, Answer, Context, DataSet, Document
from benchmarks.spread import spread
from engine import bundle as bundles
from engine.bench.environment import stamp
from engine.config import Runtime
from engine.contract import MANIFEST_NAME
from engine.errors import EngineError
from engine.serving.select import choose_backend
from trainers import droc, igd, ssae

QUESTION = "methods"
SEEDS = (0, 1, 2)
VARIANTS: Mapping[str, Sequence[str]] = {
    "ssae, objective 1": ("--method", "ssae", "--objective", "1"),
    "ssae, objective 2": ("--method", "ssae", "--objective", "2"),
    "ssae, both": ("--method", "ssae", "--objective", "both"),
    "igd, imagenet": ("--method", "igd", "--encoder", "imagenet"),
    "igd, scratch": ("--method", "igd", "--encoder", "scratch"),
    "igd, distilled": ("--method", "igd", "--encoder", "distilled"),
    "igd, self-supervised": ("--method", "igd", "--encoder", "self-supervised"),
    "droc, distaug": ("--method", "droc", "--pretext", "distaug"),
    "droc, contrastive": ("--method", "droc", "--pretext", "contrastive"),
    "droc, rotation": ("--method", "droc", "--pretext", "rotation"),
}
_EPOCHS = {"ssae": ssae.Settings().epochs, "igd": igd.Settings().epochs, "droc": droc.Settings().epochs}
_SYNTHETIC = "synthetic_AUROC"  # see `benchmarks.criterion`
_METRICS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "f1", "false_alarm_rate")
_SHOWN = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", _SYNTHETIC)
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a variant on a data set in so many passes from a seed."""

    variant: str
    data: DataSet
    epochs: int
    seed: int

    def bundle(self, context: Context) -> Path:
        """Where its bundle is kept."""
        name = self.variant.replace(", ", "-").replace(" ", "-")
        return context.folder(QUESTION) / f"{name}-{self.data.name}-{self.epochs}-{self.seed}"


class Rows:
    """The results so far, a row for a variant on a data set in so many passes, in the file that shows them."""

    def __init__(self, out: Path) -> None:
        self._out = out
        path = out / f"{QUESTION}.json"
        self._rows: list[Document] = json.loads(path.read_text())["rows"] if path.is_file() else []

    def of(self, run: Run) -> Document:
        """The row of a run, new where there is none."""
        for row in self._rows:
            if (row["data"], row["variant"], row["epochs"]) == (run.data.name, run.variant, run.epochs):
                return row
        self._rows.append(
            {"data": run.data.name, "variant": run.variant, "epochs": run.epochs, "fps": None, "runs": []}
        )
        self._rows.sort(key=lambda row: (row["data"], list(VARIANTS).index(row["variant"]), row["epochs"]))
        return self.of(run)

    def has(self, run: Run) -> bool:
        """Whether it was made already."""
        return any(made["seed"] == run.seed for made in self.of(run)["runs"])

    def made(self, run: Run) -> Document:
        """What it gave."""
        found: Document = next(made for made in self.of(run)["runs"] if made["seed"] == run.seed)
        return found

    def add(self, run: Run, found: Document) -> None:
        """Another run of a row."""
        row = self.of(run)
        row["runs"] = sorted([*row["runs"], found], key=lambda made: int(made["seed"]))

    def write(self) -> Path:
        """The file, of the rows that have runs."""
        return Answer(QUESTION, {"rows": [row for row in self._rows if row["runs"]]}).write(self._out)


def measure(context: Context, run: Run) -> Document:
    """Train and judge."""
    bundle, machine = run.bundle(context), stamp()
    options = (*VARIANTS[run.variant], "--epochs", run.epochs, "--seed", run.seed, "--threads", context.threads)
    used = _command("train", run.data.path, "--out", bundle, *options)[1]
    judged = _command("eval", bundle, run.data.path)[0]
    found = {name: judged[name] for name in _METRICS}
    cost = {"train_cpu_s": round(used.ru_utime + used.ru_stime), "peak_mb": round(used.ru_maxrss / 1024)}
    return {"seed": run.seed} | found | cost | {"environment": machine}


def _command(*arguments: object) -> tuple[Document, resource.struct_rusage]:
    """The document of an `engine` command, and what it used."""
    command = [sys.executable, "-m", "engine", *map(str, arguments), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise AssertionError("stdout is a pipe")
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise EngineError(f"engine {' '.join(map(str, arguments))}: ended with status {process.returncode}")
    return json.loads(text), usage


def _frames_per_s(bundle: Path, threads: int) -> float:
    """Of the fp32 executable alone, batch 8, on the backend that `auto` takes, in a process of its own."""
    backend = choose_backend(bundles.read(bundle), Runtime(threads=threads), _BATCH).backend
    command = [sys.executable, "-m", "engine.serving.timing", str(bundle), "fp32", backend, str(threads), str(_BATCH)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return round(float(done.stdout), 1)


def table(document: Document) -> str:
    """Markdown: mean and standard deviation over the seeds that were run."""
    lines = [
        "| data | variant | passes | seeds | image AUROC | pixel AUROC | AUPRO | synthetic | training, CPU s | MB "
        "| frames/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        scores = " | ".join(spread(_values(row, name)) for name in _SHOWN)
        cost = " | ".join(f"{median(_values(row, name)):.0f}" for name in ("train_cpu_s", "peak_mb"))
        fps = "-" if row["fps"] is None else f"{row['fps']:.0f}"
        what = f"{row['data']} | {row['variant']} | {row['epochs']} | {len(row['runs'])}"
        lines.append(f"| {what} | {scores} | {cost} | {fps} |")
    return "\n".join(lines)


def _values(row: Document, name: str) -> list[float]:
    return [run[name] for run in row["runs"] if run.get(name) is not None]


def main(arguments: list[str]) -> int:
    """Run what is asked for and not there yet, then write the results of all that is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in MVTec AD layout")
    parser.add_argument("--variant", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), help="default: all")
    parser.add_argument("--seed", type=int, nargs="*", default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--epochs", type=int, help="passes, instead of each method's own")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="keeps what was run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args(arguments)
    context = Context(options.work, tuple(options.data), options.threads)
    sets = [DataSet(path.name, path) for path in context.data]
    runs = [
        Run(variant, data, options.epochs or _EPOCHS[VARIANTS[variant][1]], seed)
        for seed in options.seed
        for variant in options.variant
        for data in sets
    ]
    rows = Rows(options.out)
    for run in runs:
        if not rows.has(run):
            rows.add(run, measure(context, run))
            print(run, rows.write(), file=sys.stderr)
    for run in runs:
        if (run.bundle(context) / MANIFEST_NAME).is_file():
            if _SYNTHETIC not in rows.made(run):
                found = criterion(run.bundle(context), run.data.path, context.threads)
                rows.made(run)[_SYNTHETIC] = round(found, 4)
            rows.of(run)["fps"] = _frames_per_s(run.bundle(context), context.threads)
    print(rows.write())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
