"""What every question needs: where its data is, commands run as a user runs them, and results written with a stamp."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.bench.environment import stamp
from engine.contract import MANIFEST_NAME
from engine.errors import EngineError
from trainers.dataset import elpv as cells
from trainers.dataset.elpv import Kind

RESULTS = Path(__file__).parent / "results"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """Where a question finds its data and keeps what it makes.

    `data` are folders in MVTec AD layout besides the demo's pictures; `work` keeps bundles between runs.
    `anomalib` is the peer's environment, made by benchmarks/peers/anomalib/setup.sh.
    """

    work: Path
    data: tuple[Path, ...] = ()
    threads: int = 0
    anomalib: Path | None = None

    def folder(self, name: str) -> Path:
        """A folder of that name in `work`."""
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set under the name that tables show."""

    name: str
    path: Path
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's document and the environment it was found in."""

    question: str
    document: Document
    environment: dict[str, object] = field(default_factory=stamp)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the JSON file of the question."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.question}.json"
        content = {"question": self.question, "environment": self.environment, **self.document}
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path


class CommandError(EngineError):
    """A command of the engine that failed; its own message is printed above."""


def engine(*arguments: object) -> Document:
    """Run an `engine` command with `--json` and return its document."""
    command = [sys.executable, "-m", "engine", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CommandError(f"engine {' '.join(map(str, arguments))}: ended with status {done.returncode}")
    document: Document = json.loads(done.stdout)
    return document


def trained(context: Context, data: DataSet, *options: object) -> tuple[Path, Document]:
    """A bundle trained by `engine train` in this run, and its report."""
    bundle = context.work / "bundles" / data.name
    bundle.parent.mkdir(parents=True, exist_ok=True)
    report = engine("train", data.path, "--out", bundle, "--threads", context.threads, *options)
    return bundle, report


def bundle_of(context: Context, data: DataSet) -> Path:
    """The bundle of a data set that an earlier question or run left in `work`, else a new one."""
    bundle = context.work / "bundles" / data.name
    if (bundle / MANIFEST_NAME).is_file():
        return bundle
    return trained(context, data)[0]


def elpv(context: Context, kind: Kind) -> DataSet:
    """The solar cells of the demo, one type, with the protocol of trainers.dataset.elpv."""
    return DataSet(f"elpv-{kind}", cells.lay_out(context.folder(f"elpv-{kind}"), kind), cells.LICENCE)


def data_sets(context: Context) -> list[DataSet]:
    """The folders given, and the demo's two sets."""
    return [DataSet(path.name, path) for path in context.data] + [elpv(context, "mono"), elpv(context, "poly")]
