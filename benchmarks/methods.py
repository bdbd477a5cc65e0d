"""How well do the methods that learn a network tell defective pictures from good ones, and what do they cost?

    python -m benchmarks.methods --data FOLDER... [--variant NAME...] [--seed N...]

A run takes minutes to an hour, so each is kept in the work folder, and the results are those of all that are there.
Training and judging are commands of the engine, each in a process of its own, whose peak memory the system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness import RESULTS, Answer, Context, DataSet, Document
from benchmarks.spread import spread
from engine import bundle as bundles
from engine.bench.environment import stamp
from engine.config import Runtime
from engine.errors import EngineError
from engine.serving.select import choose_backend

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
_METRICS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "f1", "false_alarm_rate")
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a variant on a data set from a seed."""

    variant: str
    data: DataSet
    seed: int

    def folder(self, context: Context) -> Path:
        """Where its bundle and its figures are kept."""
        name = self.variant.replace(", ", "-").replace(" ", "-")
        return context.folder(QUESTION) / f"{name}-{self.data.name}-{self.seed}"


def measure(context: Context, run: Run) -> Document:
    """Train and judge; a run that is there is read."""
    folder = run.folder(context)
    kept = folder.with_suffix(".json")
    if not kept.is_file():
        options = (*VARIANTS[run.variant], "--seed", run.seed, "--threads", context.threads)
        started = stamp()
        trained, peak_mb = _command("train", run.data.path, "--out", folder, *options)
        judged, _ = _command("eval", folder, run.data.path)
        found = {name: judged[name] for name in _METRICS}
        cost = {
            "train_s": round(trained["train_s"], 1),
            "peak_mb": peak_mb,
            "fps": _frames_per_s(folder, context.threads),
        }
        kept.write_text(json.dumps({"seed": run.seed} | found | cost | {"environment": started}, indent=1))
    document: Document = json.loads(kept.read_text())
    return document


def gather(context: Context, sets: Sequence[DataSet]) -> Iterator[Document]:
    """A row for every variant and data set that has runs in the work folder."""
    for data in sets:
        for variant in VARIANTS:
            runs = [Run(variant, data, seed) for seed in SEEDS]
            there = [measure(context, run) for run in runs if run.folder(context).with_suffix(".json").is_file()]
            if there:
                yield {"data": data.name, "variant": variant, "runs": there}


def _command(*arguments: object) -> tuple[Document, int]:
    """The document of an `engine` command, and its peak memory in MB."""
    command = [sys.executable, "-m", "engine", *map(str, arguments), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise AssertionError("stdout is a pipe")
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise EngineError(f"engine {' '.join(map(str, arguments))}: ended with status {process.returncode}")
    return json.loads(text), round(usage.ru_maxrss / 1024)


def _frames_per_s(bundle: Path, threads: int) -> float:
    """Of the fp32 executable alone, batch 8, on the backend that `auto` takes, in a process of its own."""
    backend = choose_backend(bundles.read(bundle), Runtime(threads=threads), _BATCH).backend
    command = [sys.executable, "-m", "engine.serving.timing", str(bundle), "fp32", backend, str(threads), str(_BATCH)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return round(float(done.stdout), 1)


def table(document: Document) -> str:
    """Markdown: mean and standard deviation over the seeds that were run."""
    lines = [
        "| data | variant | seeds | image AUROC | pixel AUROC | AUPRO | train s | MB | frames/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        scores = " | ".join(spread(_values(row, name)) for name in ("image_AUROC", "pixel_AUROC", "pixel_AUPRO"))
        cost = " | ".join(f"{median(_values(row, name)):.0f}" for name in ("train_s", "peak_mb", "fps"))
        lines.append(f"| {row['data']} | {row['variant']} | {len(row['runs'])} | {scores} | {cost} |")
    return "\n".join(lines)


def _values(row: Document, name: str) -> list[float]:
    return [run[name] for run in row["runs"] if run[name] is not None]


def main(arguments: list[str]) -> int:
    """Run what is asked for and not there yet, then write the results of all that is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in MVTec AD layout")
    parser.add_argument("--variant", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), help="default: all")
    parser.add_argument("--seed", type=int, nargs="*", default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="keeps what was run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args(arguments)
    context = Context(options.work, tuple(options.data), options.threads)
    sets = [DataSet(path.name, path) for path in context.data]
    for seed in options.seed:
        for variant in options.variant:
            for data in sets:
                print(measure(context, Run(variant, data, seed)), file=sys.stderr)
    print(Answer(QUESTION, {"rows": list(gather(context, sets))}).write(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
